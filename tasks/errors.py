"""The exceptions a user can meet, each with the exit status that the command line gives it.

Everything else that escapes is a fault of ours (exit status 1, with its traceback).
"""

from __future__ import annotations


class LayerwrightError(Exception):
    """Base of all errors that Layerwright raises on purpose; exit status 1."""

    exit_status = 1


class InputError(LayerwrightError):
    """The user's input is wrong: nothing was started and nothing was written.

    Args:
        message: what is wrong, in one sentence.
        where: file, line and field, or the layer: ``recipe.yaml:12: profile.rows``.
        expected: what would have been right.
        remedy: what to do about it.
    """

    exit_status = 2

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.where, self.message = where, message
        self.expected, self.remedy = expected, remedy
        lines = [f"{where}: {message}" if where else message]
        if expected:
            lines.append(f"  expected: {expected}")
        if remedy:
            lines.append(f"  to do: {remedy}")
        super().__init__("\n".join(lines))


class IntegrityError(LayerwrightError):
    """Stored bytes are not the bytes that were written: a digest or size differs."""


class StepError(LayerwrightError):
    """A step could not do its work for a reason outside the recipe (network, disk, device)."""
