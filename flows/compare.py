"""The compare flow: measure two checkpoints side by side on a recipe's data and metrics."""

from __future__ import annotations

from typing import Any

from prefect import flow

from layerwright.flows.outcome.compare import keep_comparison
from layerwright.flows.session.checkpoints import common_base, named_checkpoint
from layerwright.flows.session.inputs import evaluated, fetch_texts, items_of
from layerwright.flows.session.session import session
from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.gate.side_by_side import compare_arms


@flow(persist_result=False, validate_parameters=False)
def compare(
    a: str,
    b: str,
    recipe: str,
    assignments: list[str] | None = None,
    home: str | None = None,
    run: str | None = None,
) -> Any:
    """fetch, evaluate, and the paired statistics of B against A.

    Args:
        a, b: ``NAME@alias``, ``NAME/version``, a checkpoint's folder, or a run.
        recipe, assignments, home, run: as for `convert`.

    Raises:
        InputError: A or B does not exist, or they were made from different bases.
    """
    with session("compare", recipe, assignments, home, run) as opened:
        gate = opened.recipe.gate
        assert gate is not None  # the flow needs the block
        first, second = (named_checkpoint(name, opened.place) for name in (a, b))
        base = common_base(first, second, opened)
        texts = fetch_texts(opened, "compare")
        report = evaluated(opened, base, second, Champion(version=a, checkpoint=first), texts)
        found = compare_arms(
            report,
            items_of(opened, report),
            significance=gate.significance,
            min_items=gate.min_items,
            seed=opened.place.seed,
        )
        return keep_comparison(opened, found, report, {"A": (a, first), "B": (b, second)})
