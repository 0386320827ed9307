"""The records of a stage on disk, one per request, so that a killed roll-out can resume."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from layerwright.tasks.contracts.rollout import Request, Served
from layerwright.tasks.errors import InputError, IntegrityError


class StageRecords:
    """The records of a stage, in a file of JSON Lines.

    A kill can cut off the last line; that line is then removed.

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
                expected="the log that the roll-out began with; new requests may follow at its end",
            )
        return record

    def keep(self, record: Served) -> None:
        """Append a record and wait until it is on disk."""
        with self.path.open("ab") as file:
            file.write(record.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._records[record.id] = record


def prompt_sha256(request: Request) -> str:
    return hashlib.sha256(request.prompt.encode()).hexdigest()
