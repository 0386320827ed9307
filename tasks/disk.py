"""Write files atomically, hash them, and convert the errors of a full disk to StepError."""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwright.tasks.errors import LayerwrightError, StepError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_as_step_error(where: Path | str) -> Iterator[None]:
    """Convert any out-of-space error in the block to StepError, which names ``where``."""
    try:
        yield
    except Exception as error:
        if isinstance(error, LayerwrightError) or not is_out_of_space(error):
            raise
        raise StepError(
            f"no space left in {where}: {error}\n"
            "  to do: free some space and run the same command again; finished steps are kept"
        ) from error


def is_out_of_space(error: BaseException) -> bool:
    """Whether an error means a full disk, an exceeded quota or a limit on the file size."""
    if isinstance(error, OSError):
        return error.errno in OUT_OF_SPACE
    # safetensors and SQLite raise their own errors, whose messages contain the system's text
    return any(os.strerror(number) in str(error) for number in OUT_OF_SPACE)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees either the old content or all of the new one."""
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
