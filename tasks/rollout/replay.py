"""Read a request log, and replay it through champion and challenger with the shares of a stage."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from layerwright.tasks.contracts.rollout import Answer, Request, Served, Side
from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.probes.text_match import rouge_l
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.rollout import RolloutStage
from layerwright.tasks.rollout.answering import Respondent, failed
from layerwright.tasks.rollout.assignment import assign

EXPECTED = (
    '{"id": TEXT, "prompt": TEXT, "reference": TEXT, "max_new_tokens": N}; the last two are '
    "optional"
)


def read_log(path: Path | str) -> tuple[Request, ...]:
    """All requests of a log.

    Raises:
        InputError: the file cannot be read or is empty, a line is not a request, or two requests
            have the same id. The error names file, line and field.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            expected="a request log, JSON Lines in UTF-8",
        ) from error
    if lines == [""]:
        raise InputError("the log has no requests", where=str(path), expected="at least one")
    line_of: dict[str, int] = {}
    requests = []
    for number, line in enumerate(lines, 1):
        request = _request(line, f"{path}:{number}")
        if first := line_of.get(request.id):
            raise InputError(
                f"line {first} has the same id {request.id!r}",
                where=f"{path}:{number}: id",
                expected="a unique id for each request",
            )
        line_of[request.id] = number
        requests.append(request)
    return tuple(requests)


def _request(line: str, at: str) -> Request:
    try:
        return Request.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        where = f"{at}: {field}" if field else at
        raise InputError(first["msg"], where=where, expected=EXPECTED) from error


SIDES: tuple[Side, Side] = ("champion", "challenger")
Sides = Mapping[Side, Respondent]
SAME_LOG = "the log that the roll-out began with; new requests may follow at its end"


class StageRecords:
    """The records of a stage, one per request, on disk so that a killed roll-out can resume.

    The file has JSON Lines. A kill can cut off the last line; that line is then removed.

    Raises:
        IntegrityError: another line is not a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[str, Served] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            complete, _, cut_off = path.read_bytes().rpartition(b"\n")
            for number, line in enumerate(complete.split(b"\n") if complete else (), 1):
                try:
                    record = Served.model_validate_json(line)
                except ValidationError as error:
                    raise IntegrityError(f"{path}:{number}: not a roll-out's record") from error
                self._records[record.id] = record
            if cut_off:
                os.truncate(path, path.stat().st_size - len(cut_off))

    def find(self, request: Request) -> Served | None:
        """The record of a request from an earlier run; None if there is none.

        Raises:
            InputError: the recorded request has the same id but another prompt.
        """
        record = self._records.get(request.id)
        if record and record.prompt_sha256 != prompt_sha256(request):
            raise InputError(
                f"the request {request.id!r} had another prompt when the roll-out ran it",
                where="--log",
                expected=SAME_LOG,
            )
        return record

    def keep(self, record: Served) -> None:
        """Append a record and wait until it is on disk."""
        with self.path.open("ab") as file:
            file.write(record.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._records[record.id] = record


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
    sides: Callable[[], Sides],
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
        both = enumerate(zip(requests, recorded, strict=True))
        what, total = f"roll-out, {stage.name}", len(requests)
        for index, (request, record) in bar.track(both, total=total, description=what):
            if record is None:
                record = _serve(request, index, model, stage, loaded)
                records.keep(record)
            served.append(record)
    return served


def _asks_both(model: str, request: Request, stage: RolloutStage) -> bool:
    return not stage.share or assign(model, request.id, stage.share) == "challenger"


def _serve(request: Request, turn: int, model: str, stage: RolloutStage, sides: Sides) -> Served:
    both = _asks_both(model, request, stage)
    # the sides alternate in who answers first, so that a slow machine affects both equally
    order = SIDES[:: 1 if turn % 2 else -1] if both else SIDES[:1]
    answers: dict[Side, Answer] = {}
    tokens: dict[Side, Sequence[int]] = {}
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
        side=assign(model, request.id, stage.share),
        champion=answers["champion"],
        challenger=answers.get("challenger"),
        agreement=agreement,
        champion_nll=_finite(nats["champion"]),
        challenger_nll=_finite(nats["challenger"]),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def prompt_sha256(request: Request) -> str:
    return hashlib.sha256(request.prompt.encode()).hexdigest()
