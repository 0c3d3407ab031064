"""HTML pages out of templates, in which everything that is filled in is escaped."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("transforms.storage"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def fill(template: str, **values: object) -> str:
    """Renders a template.

    Args:
        template: the name of a file in the folder ``templates``.
        values: the values of its variables. They may come from anywhere, because they are escaped.
    """
    return _environment().get_template(template).render(**values)
