"""How much of one plan is in another."""

import pytest

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.survey import overlap


def plan(letters: str) -> ConversionPlan:
    """A letter a layer: k is kept, s streams, r is removed."""
    strategies = {"k": "keep", "s": "streaming", "r": "remove"}
    return ConversionPlan(
        model_sha256="0",
        layers=len(letters),
        context_tokens=1,
        selector="by hand",
        items=tuple(
            PlanItem(start=i, stop=i + 1, strategy=strategies[one]) for i, one in enumerate(letters)
        ),
    )


@pytest.mark.parametrize(
    ("one", "other", "same", "jaccard"),
    [
        ("kkkk", "kkkk", 1.0, 1.0),
        ("sskk", "sskk", 1.0, 1.0),
        ("sskk", "kkss", 0.0, 0.0),
        ("sskk", "srkk", 0.75, 1.0),  # converted alike, but to something else
        ("sssk", "ksss", 0.5, 0.5),
        ("kkkk", "skkk", 0.75, 0.0),
    ],
)
def test_overlap_counts_strategies_and_converted_layers(one, other, same, jaccard) -> None:
    for pair in ((one, other), (other, one)):
        found = overlap(*map(plan, pair))
        assert (found.same_strategy, found.jaccard) == (same, jaccard)
