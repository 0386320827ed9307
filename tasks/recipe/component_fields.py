"""The types of the recipe's fields that hold components.

Validation imports the component's room, and nothing before that does: reading a recipe's other
blocks needs no torch.
"""

from typing import TYPE_CHECKING

from layerwright.tasks.components import component

if TYPE_CHECKING:
    from layerwright.tasks.choose.base import Selector
    from layerwright.tasks.evaluate.base import Metric
    from layerwright.tasks.finetune.objectives.base import Objective
    from layerwright.tasks.profile.base import Profiler
    from layerwright.tasks.strategies.base import Strategy
if not TYPE_CHECKING:  # no `else`: cache keys leave out the block above
    Metric = component("evaluate.base:Metric")
    Objective = component("finetune.objectives.base:Objective")
    Profiler = component("profile.base:Profiler")
    Selector = component("choose.base:Selector")
    Strategy = component("strategies.base:Strategy")

__all__ = ["Metric", "Objective", "Profiler", "Selector", "Strategy"]
