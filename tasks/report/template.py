"""The Jinja environment of the page templates."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from layerwright.tasks.report import formats

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals["f"] = formats


def template(name: str) -> Template:
    """A template of this folder. Rendering it without one of its variables is an error."""
    return _ENVIRONMENT.get_template(name)
