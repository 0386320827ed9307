"""Progress bars, on stderr; disabled if stderr is not a terminal."""

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


class Bar(Progress):
    """A rich progress display whose tasks can show a ``note`` after the bar."""

    def add_task(self, description: str, *, note: str = "", **options: Any) -> TaskID:  # type: ignore[override]
        return super().add_task(description, note=note, **options)


def progress() -> Bar:
    """``with progress() as bar: job = bar.add_task("profile", total=n); bar.advance(job)``.

    ``bar.update(job, note="loss 2.31")`` changes the note after the bar.
    """
    console = Console(stderr=True)
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
