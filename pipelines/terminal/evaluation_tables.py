"""Shows the results of an evaluation as tables on the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from transforms.evaluation.results import Findings, Results
from transforms.evaluation.scaled import ScaledResults


def show(results: Results) -> None:
    """Prints all tables."""
    console = Console()
    for table in tables(results):
        console.print(table)


def tables(results: Results) -> list[Table]:
    """Returns three tables: picture sets, height bands, and everything else."""
    sets, bands = results["sets"], results["bands"]
    measures = [name for name, value in next(iter(sets.values())).items() if isinstance(value, Mapping)]
    kids = [name for name in measures if name.startswith("KID")]
    counts = ["pictures", *(str(row["pictures"]) for row in sets.values())]
    distances = table(
        "Distance to held-out photographs (in parentheses: the training photographs' distance)",
        ["", *sets],
        [counts, *([name, *(with_error(row[name]) for row in sets.values())] for name in measures)],
    )
    by_height = table(
        "By pixels below the horizon (generated / photographs)",
        ["px", *kids, "clipped", "contrast", "fine power"],
        [[name, *(with_error(row[key]) for key in kids), *means(row)] for name, row in bands.items()],
    )
    return [distances, by_height, table("More", ["", ""], others(results))]


def show_scaled(results: ScaledResults) -> None:
    """Prints the figures of each method."""
    methods = results["methods"]
    names = dict.fromkeys(name for row in methods.values() for name in row)
    counts = ", ".join(f"{count} of {name}" for name, count in results["pictures"].items())
    title = f"Compared with held-out photographs; pictures: {counts}"
    rows = [[name, *(with_error(row[name]) if name in row else "" for row in methods.values())] for name in names]
    Console().print(table(title, ["", *methods], rows))


def means(row: Findings) -> list[str]:
    """Returns the mean statistics of a band's patches."""
    return [pair(row["clipped"], "{:.1%}"), pair(row["contrast"], "{:.0f}"), pair(row["fine power"], "{:.0f}")]


def others(results: Results) -> Iterable[Sequence[str]]:
    """Yields all other results, one line each."""
    for network, means in results["mean KID"].items():
        for name, value in means.items():
            yield f"mean KID-{network}, {name}", with_error(value)
    for name, value in results["colours"].items():
        yield (
            f"{name.replace('_', ' less ')}: shift of the patches, of 255",
            f"{with_error(value)}, {pair(value, '{:.0f}')}",
        )
    for name, spread in results["horizon"].items():
        yield f"spread of the horizon {name}", f"{pair(spread, '{:.3f}')} = {with_error(spread['ratio'])}"
    repetition = results["repetition"]
    controls = f"shuffled {number(repetition['shuffled_mean'])}, 95% below {number(repetition['shuffled_95'])}"
    yield "correlation at the coordinate's period", f"{with_error(repetition['at_period'])}; {controls}"
    for name, apart in results["LPIPS"].items():
        yield f"LPIPS, {name.replace('_', ' ')}", with_error(apart) if isinstance(apart, Mapping) else number(apart)


def table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    """Makes a table of text."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        made.add_column(name, justify="right" if place else "left")
    for row in rows:
        made.add_row(*row)
    return made


def with_error(value: Mapping[str, Any]) -> str:
    """Formats a value with its error, followed by the training photographs' value in parentheses."""
    trained = f" ({number(value['trained'])})" if "trained" in value else ""
    return f"{number(value['value'])} ± {number(value['error'])}{trained}"


def pair(value: Mapping[str, Any], form: str) -> str:
    """Formats the values of generated pictures and of photographs."""
    return f"{form.format(value['generated'])} / {form.format(value['photographs'])}"


def number(value: float) -> str:
    """Formats a number with three decimals below ten and one above."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
