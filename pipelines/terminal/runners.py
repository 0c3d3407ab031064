"""The runners that ``--runner`` names in short, with the flags that suit each. What the user gives is never changed."""

import json
import os
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from model.errors import InputError

JOB_SERVER_S: Final = 20
CLUSTER_S: Final = 5.0
"""How many seconds a job server, and Flink's own interface, may take to answer."""

PORTABLE = (
    f"--job_server_timeout={JOB_SERVER_S}",
    "--environment_cache_millis=60000",
    # Otherwise Beam runs `pip freeze` for each job, which takes a second. Workers compare the versions that matter.
    "--experiments=disable_logging_submission_environment",
)
RESTARTS = ("--number_of_execution_retries=10", "--execution_retry_delay=2000")
PACKAGE = Path(__file__).parents[2] / "setup.py"
WORKERS_ARE_GIVEN = ("--environment_type", "--sdk_container_image", "--setup_file", "--extra_package")

DEFAULTS: Final[dict[str, tuple[str, ...]]] = {
    "direct": (),
    "prism": (*PORTABLE, "--prism_log_level=error"),
    "portable": PORTABLE,
    "flink": (*PORTABLE, *RESTARTS),
    "spark": PORTABLE,
    "dataflow": (),
}
CLASSES: Final = {"direct": "FnApiRunner", "prism": "PrismRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}
"""In-process is set explicitly, because Beam's own default first tries to download another runner."""

DESCRIBED: Final = ("portable", "flink", "spark", "prism")
"""The runners whose job server describes further flags."""

STARTED: Final = ("flink", "spark")
"""Those of them that start a job server of their own if none is named, so that its flags are known only then."""


def value_of(flags: Sequence[str], name: str) -> str | None:
    """Returns the value of a flag, given as ``--flag=value`` or ``--flag value``; None if it is not given."""
    found = None
    for place, flag in enumerate(flags):
        start, equals, value = flag.partition("=")
        if start == name:
            found = value if equals else next(iter(flags[place + 1 : place + 2]), "")
    return found


def runner_of(flags: Sequence[str]) -> str:
    """Returns the short name of the runner that the flags choose, such as ``flink`` for ``FlinkRunner``."""
    return (value_of(flags, "--runner") or "direct").rpartition(".")[2].lower().removesuffix("runner")


def with_defaults(flags: Sequence[str]) -> list[str]:
    """Returns the flags with the full name of their runner, and its defaults for all that is not given.

    Raises:
        InputError: a Flink cluster has no slots, or fewer than are wanted.
    """
    name, named = runner_of(flags), value_of(flags, "--runner")
    flags = list(flags)
    if named is None:
        flags.append(f"--runner={CLASSES['direct']}")
    elif named.lower() in CLASSES:
        flags = without(flags, "--runner")
        flags.append(f"--runner={CLASSES[named.lower()]}")
    more = [*DEFAULTS.get(name, ()), *found_here(name, flags)]
    return [*flags, *(flag for flag in more if value_of(flags, flag.partition("=")[0]) is None)]


def without(flags: Sequence[str], name: str) -> list[str]:
    """Returns the flags without one of them and its value."""
    kept, skip = [], False
    for flag in flags:
        if skip:
            skip = False
        elif flag == name:
            skip = True
        elif not flag.startswith(f"{name}="):
            kept.append(flag)
    return kept


def found_here(name: str, flags: Sequence[str]) -> list[str]:
    """Returns the defaults that depend on this machine and on the cluster."""
    found = []
    if name == "prism" and (program := os.environ.get("PRISM") or shutil.which("prism")) and os.path.isfile(program):
        found.append(f"--prism_location={program}")
    needs_package = name in ("flink", "spark", "dataflow") and PACKAGE.exists()
    if needs_package and all(value_of(flags, given) is None for given in WORKERS_ARE_GIVEN):
        found.append(f"--setup_file={PACKAGE}")
    master = value_of(flags, "--flink_master") if name == "flink" else None
    if master and not master.startswith("["):
        found.append(f"--parallelism={slots(master, int(value_of(flags, '--parallelism') or 1))}")
    return found


def slots(master: str, wanted: int) -> int:
    """Returns the number of slots of a Flink cluster.

    Raises:
        InputError: the cluster does not answer, or has fewer slots than are wanted.
    """
    url = f"{master if '://' in master else f'http://{master}'}/overview"
    try:
        with urllib.request.urlopen(url, timeout=CLUSTER_S) as answer:
            there = int(json.load(answer)["slots-total"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--flink_master {master}: {url} does not answer ({error}); check the address") from None
    if there < max(wanted, 1):
        raise InputError(f"--flink_master {master} has {there} slots, but the job wants {wanted}: add TaskManagers")
    return there
