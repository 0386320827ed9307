"""A log of requests: JSON Lines, oldest first."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from layerwright.tasks.contracts.rollout import Request
from layerwright.tasks.errors import InputError

EXPECTED = '{"id": TEXT, "prompt": TEXT, "reference": TEXT, "max_new_tokens": N}, the last two free'


def read_log(path: Path | str) -> tuple[Request, ...]:
    """Every request of a log.

    Raises:
        InputError: it cannot be read or is empty, a line is no request, or an id comes twice; with
            file, line and field.
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
    found: dict[str, int] = {}
    requests = []
    for number, line in enumerate(lines, 1):
        request = _request(line, f"{path}:{number}")
        if first := found.get(request.id):
            raise InputError(
                f"{request.id!r} stands in line {first} too",
                where=f"{path}:{number}: id",
                expected="an id of its own for each request",
            )
        found[request.id] = number
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
