"""What was measured of each request of a stage, on disk as it comes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from layerwright.tasks.contracts.rollout import Request, Served
from layerwright.tasks.errors import InputError, IntegrityError


class StageRecords:
    """A file of JSON Lines that a kill may cut off in its last line, and nowhere else.

    Raises:
        IntegrityError: another line of it is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, Served] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            whole, _, cut_off = path.read_bytes().rpartition(b"\n")
            for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
                try:
                    served = Served.model_validate_json(line)
                except ValidationError as error:
                    raise IntegrityError(f"{path}:{number}: not a roll-out's record") from error
                self._found[served.id] = served
            if cut_off:
                os.truncate(path, path.stat().st_size - len(cut_off))

    def find(self, request: Request) -> Served | None:
        """What an earlier run measured of a request.

        Raises:
            InputError: that was another request by the same id.
        """
        found = self._found.get(request.id)
        if found and found.prompt_sha256 != prompt_sha256(request):
            raise InputError(
                f"the request {request.id!r} had another prompt when it was run",
                where="--log",
                expected="the log that the roll-out began with, or one that goes on behind it",
            )
        return found

    def keep(self, served: Served) -> None:
        """Append a record; it is on disk when this returns."""
        with self.path.open("ab") as file:
            file.write(served.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._found[served.id] = served


def prompt_sha256(request: Request) -> str:
    return hashlib.sha256(request.prompt.encode()).hexdigest()
