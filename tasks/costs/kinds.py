"""The kinds of layers that a base has and that strategies make of them, each once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Contract, Spec
from layerwright.tasks.contracts.costs import LayerSpec
from layerwright.tasks.hybrid.configuration import normalised_spec
from layerwright.tasks.hybrid.stock import REMOVED
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.keep import Keep


class Kind(Contract):
    """Layers of one spec, whose defaults are filled in, and the strategies that make them."""

    spec: LayerSpec
    strategies: tuple[str, ...] = ()


def kinds_of(
    base_specs: Sequence[LayerSpec], strategies: Sequence[Spec], log: Callable[[str], None]
) -> list[Kind]:
    """What is kept first, then what strategies make; never a removed layer, which takes no time.

    A run that becomes one thing is layers too: one that holds it, and removed ones.

    Args:
        log: hears of strategies that are left out, because their layers decide together.

    Raises:
        InputError: an unknown strategy or option, or one that needs a profile.
    """
    found: list[Kind] = []
    for wanted in (Spec(name=Keep.name), *strategies):
        strategy = build(Strategy, wanted, where="choose.strategies")
        if strategy.decides_together:
            log(f"costs: {wanted.name} decides over its layers together: one alone has no time")
            continue
        for spec in (spec for base in base_specs for spec in strategy.layer_specs([base, base])):
            made = normalised_spec(spec, 0)
            if made != REMOVED:
                _note(found, made, wanted.name)
    return found


def _note(found: list[Kind], spec: LayerSpec, strategy: str) -> None:
    for at, kind in enumerate(found):
        if kind.spec == spec:
            names = dict.fromkeys((*kind.strategies, strategy))
            found[at] = kind.model_copy(update={"strategies": tuple(names)})
            return
    found.append(Kind(spec=spec, strategies=(strategy,)))
