"""The page's templates, filled; they use no script and no style from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from lib.queries.regions import centre
from lib.view.overview import ago
from lib.volumes.boxes import describe_box

HERE = Path(__file__).parent
STATIC = HERE / "static"
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'self'"
"""The browser itself keeps to this machine, and runs nothing that a name smuggles in."""

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "ago": ago,
    "box": describe_box,
    "middle": lambda box: ",".join(map(str, centre(box))),
    "percent": lambda share: f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}",
    "figure": lambda value: f"{value:.3g}",
}


def render(template: str, values: Mapping[str, Any]) -> str:
    """One page as HTML.

    Args:
        template: a file of `templates/`.
        values: for its names; one that is missing is an error.
    """
    return _ENVIRONMENT.get_template(template).render(**values)
