"""The exceptions that users see, with the exit status of the command line.

Any other exception is a bug of Layerwright: exit status 1, with a traceback.
"""

from __future__ import annotations


class LayerwrightError(Exception):
    """The base class of all errors that Layerwright raises; exit status 1."""

    exit_status = 1


class InputError(LayerwrightError):
    """The user's input is wrong; exit status 2. Nothing was started or written.

    Args:
        message: what is wrong, in one sentence.
        where: file, line and field (``recipe.yaml:12: profile.rows``), or the layer.
        expected: valid input.
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
        text = f"{where}: {message}" if where else message
        text += f"\n  expected: {expected}" if expected else ""
        super().__init__(text + (f"\n  to do: {remedy}" if remedy else ""))

    def at(self, where: str) -> InputError:
        """The same error with another place."""
        return InputError(self.message, where=where, expected=self.expected, remedy=self.remedy)


class IntegrityError(LayerwrightError):
    """Stored bytes differ from those that were written: a digest or size does not match."""


class Interrupted(LayerwrightError):  # noqa: N818 - the user's decision is no error
    """Ctrl-C during a run; the message names the kept results and the command to continue."""

    exit_status = 130


class StepError(LayerwrightError):
    """A step failed for a reason outside the recipe: network, disk, device."""
