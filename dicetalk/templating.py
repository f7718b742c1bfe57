"""How this project's pages are rendered: escaped HTML, and an error for a name that is not given."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def page_templates(package: str) -> Environment:
    """Return the templates in the `templates` folder of a package, e.g. `dicetalk.report`."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
