"""The self-contained HTML pages: one template each, all on ``templates/page.html``, which holds head and style."""

from __future__ import annotations

from typing import Any


def fill_page(template: str, **values: Any) -> str:
    """Return a page that needs no other file.

    Parameters
    ----------
    template
        Name of a file in ``templates/``.
    **values
        What the template shows. Text is escaped; a chart is marked ``safe`` in the template.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unitrain.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(values)
