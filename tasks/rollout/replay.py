"""Requests of a log through champion and challenger, in the shares of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from layerwright.tasks.contracts.rollout import Request, Served, Side
from layerwright.tasks.probes.text_match import rouge_l
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.rollout import RolloutStage
from layerwright.tasks.rollout.answering import Respondent, failed
from layerwright.tasks.rollout.assignment import assign
from layerwright.tasks.rollout.stage_records import StageRecords, prompt_sha256

SIDES: tuple[Side, Side] = ("champion", "challenger")
Sides = Callable[[], Mapping[Side, Respondent]]


def read_for(
    requests: Sequence[Request], model: str, stage: RolloutStage, pairs: int
) -> tuple[int, int]:
    """How many requests must be read until both sides have answered so many, and how many pairs
    that gives: fewer where the log ends before."""
    found = 0
    for index, request in enumerate(requests):
        found += _asks_both(model, request, stage)
        if found == pairs:
            return index + 1, found
    return len(requests), found


def replay(
    requests: Sequence[Request],
    model: str,
    stage: RolloutStage,
    records: StageRecords,
    sides: Sides,
) -> list[Served]:
    """What became of each request, in order; those that were run before are not run again.

    At the challenger's requests the champion is asked too; its answer does not count there.

    Args:
        model: the registered model's name, which `assign` takes.
        sides: loads the two; called only where there is something to run.
    """
    found = [records.find(request) for request in requests]
    if all(found):
        return [served for served in found if served]
    loaded = sides()
    for respondent in loaded.values():
        respondent.warm_up(requests[0])
    served: list[Served] = []
    with progress() as bar:
        job = bar.add_task(f"roll-out, {stage.name}", total=len(requests))
        for index, (request, before) in enumerate(zip(requests, found, strict=True)):
            if before is None:
                before = _serve(request, index, model, stage, loaded)
                records.keep(before)
            served.append(before)
            bar.advance(job)
    return served


def _asks_both(model: str, request: Request, stage: RolloutStage) -> bool:
    return not stage.share or assign(model, request.id, stage.share) == "challenger"


def _serve(
    request: Request,
    turn: int,
    model: str,
    stage: RolloutStage,
    sides: Mapping[Side, Respondent],
) -> Served:
    side = assign(model, request.id, stage.share)
    both = _asks_both(model, request, stage)
    # in turns of who is first, so that a slow minute of the machine hits both alike
    asked = SIDES[:: 1 if turn % 2 else -1] if both else SIDES[:1]
    said = {name: sides[name].answer(request) for name in asked}
    answers = {name: answer for name, (answer, _) in said.items()}
    agreement, nats = None, dict.fromkeys(SIDES, math.nan)
    if both and not any(answer.error for answer in answers.values()):
        agreement = rouge_l(answers["challenger"].text, (answers["champion"].text,))
        nats = {name: sides[name].nll(request, said["champion"][1]) for name in SIDES}
        for name in SIDES:
            if not math.isfinite(nats[name]):
                answers[name] = failed(answers[name], "the logits are no finite numbers")
    return Served(
        id=request.id,
        prompt_sha256=prompt_sha256(request),
        side=side,
        champion=answers["champion"],
        challenger=answers.get("challenger"),
        agreement=agreement,
        champion_nll=_finite(nats["champion"]),
        challenger_nll=_finite(nats["challenger"]),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
