"""The requalify flow: measure a registered version, its base and the champion on fresh data."""

from __future__ import annotations

from typing import Any

from prefect import flow

from layerwright.flows.outcome.requalify import RequalificationOutcome, keep_requalification
from layerwright.flows.session.checkpoints import base_of
from layerwright.flows.session.inputs import evaluated, fetch_texts
from layerwright.flows.session.session import judged, session
from layerwright.tasks.gate.task import decide
from layerwright.tasks.gate.watch import find_alarms
from layerwright.tasks.register.requalification import registered_version


@flow(persist_result=False, validate_parameters=False)
def requalify(
    version: str,
    recipe: str,
    assignments: list[str] | None = None,
    home: str | None = None,
    run: str | None = None,
) -> Any:
    """fetch, evaluate, gate, watch, report; the decision goes to the version's tags.

    The state is `Completed`, or `Rejected` by the gate.

    Args:
        version: ``NAME@alias`` or ``NAME/version``.
        recipe, assignments, home, run: as for `convert`.

    Raises:
        InputError: the version does not exist, or the recipe's store lacks its checkpoint or base.
    """
    with session("requalify", recipe, assignments, home, run) as opened:
        found = registered_version(opened.tracking_uri, version)
        base = base_of(found.checkpoint, opened)
        champion = opened.champion(base, found.name)
        if champion and champion.version == found.version:
            champion = None  # a version is not measured twice
        texts = fetch_texts(opened, "requalify")
        report = evaluated(opened, base, found.checkpoint, champion, texts)
        decision = decide(report, opened.recipe.gate, run=opened.run)
        alarms = find_alarms(report, opened.recipe.watch, found.figures_of(report))
        outcome = RequalificationOutcome(opened, found, base, report, decision, alarms)
        return judged(keep_requalification(outcome))
