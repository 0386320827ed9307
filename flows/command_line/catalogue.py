"""What this installation can do: every component by name, with its options."""

from __future__ import annotations

from typing import Any

from layerwright.tasks.choose.base import Selector
from layerwright.tasks.components import Component, discover
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.finetune.objectives.base import Objective
from layerwright.tasks.hybrid.families import FAMILIES
from layerwright.tasks.profile.base import Profiler
from layerwright.tasks.strategies.base import Strategy

KINDS: dict[str, type[Component]] = {
    "strategies": Strategy,
    "profilers": Profiler,
    "selectors": Selector,
    "objectives": Objective,
    "metrics": Metric,
}


def catalogue() -> dict[str, Any]:
    """Names by kind, model families, and under ``options`` each component's options and purpose."""
    found = {plural: discover(kind) for plural, kind in KINDS.items()}
    return {
        **{plural: list(components) for plural, components in found.items()},
        "families": list(FAMILIES),
        "options": {
            plural: {
                name: {
                    "purpose": (component.__doc__ or "").strip().split("\n")[0],
                    "options": {
                        option: str(field.get_default(call_default_factory=True))
                        if not field.is_required()
                        else "required"
                        for option, field in component.model_fields.items()
                    },
                }
                for name, component in components.items()
            }
            for plural, components in found.items()
        },
    }
