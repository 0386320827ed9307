"""Replay requests of a log through champion and challenger, with the shares of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from layerwright.tasks.contracts.rollout import Answer, Request, Served, Side
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
    """How many requests to read from the log for ``pairs`` pairs of answers.

    Returns:
        The number of requests, and the number of pairs: fewer than asked if the log is too short.
    """
    count = 0
    for index, request in enumerate(requests):
        count += _asks_both(model, request, stage)
        if count == pairs:
            return index + 1, count
    return len(requests), count


def replay(
    requests: Sequence[Request],
    model: str,
    stage: RolloutStage,
    records: StageRecords,
    sides: Sides,
) -> list[Served]:
    """The record of each request, in order. Requests with a record are not run again.

    The champion also answers the challenger's requests, for the comparison.

    Args:
        model: the registered model's name, for ``assign``.
        sides: loads both checkpoints; called only if a request has no record.
    """
    recorded = [records.find(request) for request in requests]
    if all(recorded):
        return [record for record in recorded if record]
    loaded = sides()
    for respondent in loaded.values():
        respondent.warm_up(requests[0])
    served: list[Served] = []
    with progress() as bar:
        job = bar.add_task(f"roll-out, {stage.name}", total=len(requests))
        for index, (request, record) in enumerate(zip(requests, recorded, strict=True)):
            if record is None:
                record = _serve(request, index, model, stage, loaded)
                records.keep(record)
            served.append(record)
            bar.advance(job)
    return served


def _asks_both(model: str, request: Request, stage: RolloutStage) -> bool:
    return not stage.share or assign(model, request.id, stage.share) == "challenger"


def _serve(
    request: Request, turn: int, model: str, stage: RolloutStage, sides: Mapping[Side, Respondent]
) -> Served:
    side = assign(model, request.id, stage.share)
    both = _asks_both(model, request, stage)
    # the sides alternate in who answers first, so that a slow machine affects both equally
    order = SIDES[:: 1 if turn % 2 else -1] if both else SIDES[:1]
    answers: dict[Side, Answer] = {}
    tokens: dict[Side, tuple[int, ...]] = {}
    for name in order:
        answers[name], tokens[name] = sides[name].answer(request)
    agreement, nats = None, dict.fromkeys(SIDES, math.nan)
    if both and not any(answer.error for answer in answers.values()):
        agreement = rouge_l(answers["challenger"].text, (answers["champion"].text,))
        nats = {name: sides[name].nll(request, tokens["champion"]) for name in SIDES}
        for name in SIDES:
            if not math.isfinite(nats[name]):
                answers[name] = failed(answers[name], "the logits are not finite")
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
