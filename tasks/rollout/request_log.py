"""Read a request log: JSON Lines, oldest request first."""

from pathlib import Path

from pydantic import ValidationError

from layerwright.tasks.contracts.rollout import Request
from layerwright.tasks.errors import InputError

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
