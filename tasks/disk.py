"""A disk that is full, told as one error whichever library ran into it."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwright.tasks.errors import LayerwrightError, StepError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def told_when_full(where: Path | str) -> Iterator[None]:
    """Around work that writes: a full disk becomes a StepError.

    Args:
        where: what the disk holds, for the message.

    Raises:
        StepError: an OSError of a full disk, or an error of a library that speaks of one.
    """
    try:
        yield
    except LayerwrightError:
        raise
    except Exception as error:
        if no_room(error):
            raise StepError(
                f"no room left to write under {where}: {error}\n"
                "  to do: free some space, then give the same command again; what is done stays"
            ) from error
        raise


def no_room(error: BaseException) -> bool:
    """Whether the system refused to write more: a full disk, a quota, a limit on a file's size."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    # safetensors and SQLite have errors of their own, with the system's words in them
    return any(os.strerror(number) in str(error) for number in NO_ROOM)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Temporary name, flush to disk, rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
