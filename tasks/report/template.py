"""The Jinja environment of the page templates."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from layerwright.tasks.report import formats


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["f"] = formats
    return environment


def template(name: str) -> Template:
    """A template of this folder. Rendering it without one of its variables is an error."""
    return _environment().get_template(name)
