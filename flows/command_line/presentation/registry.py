"""Print the versions of a model, the moves of its champion, and its roll-out."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from layerwright.flows.command_line.champion_moves import Assignment, Moved, Unmoved
from layerwright.flows.command_line.presentation.tables import new_table, number
from layerwright.tasks.contracts.rollout import RolloutResult, RolloutState
from layerwright.tasks.register.history import History


def show_move(console: Console, move: Moved | Unmoved) -> None:
    """A move of a champion's alias."""
    if isinstance(move, Unmoved):
        console.print(f"{move.model}: that version is its {move.alias} already")
        return
    before = f"version {move.before}" if move.before else "none"
    console.print(
        f"{move.action:11} {move.model}@{move.alias}: {before} -> version {move.version}",
        highlight=False,
    )
    console.print(f"approved    by {move.by} ({move.how}): {move.reason}", markup=False)


def show_history(console: Console, history: History) -> None:
    """A registered model's versions, the moves of its champion, and its latest roll-out."""
    table = new_table(
        f"Versions of {history.model}",
        *("version", "aliases", "decision", "until", "beside champion", "state"),
    )
    for row in history.versions:
        cells = (row.version, ", ".join(row.aliases), row.decision, row.expires_at[:16])
        table.add_row(*cells, row.compared_champion, escape(row.state))
    console.print(table)
    table = new_table("Moves of its champion", "when", "what", "from", "to", "by", "reason")
    for move in history.moves:
        action = move.action + ("" if move.finished_at else ", cut off")
        by = f"{move.by} ({move.how})"
        places = (move.before or "-", move.version)
        table.add_row(move.started_at, action, *places, escape(by), escape(move.reason))
    console.print(table)
    if state := history.rollout:
        console.print(
            f"roll-out {state.attempt}  version {state.challenger} beside champion "
            f"{state.champion}: {_status(state)} since {state.since}",
            highlight=False,
        )


def show_rollout(console: Console, rollout: RolloutResult) -> None:
    """A roll-out: every limit at each stage, and its status."""
    state = rollout.state
    title = f"Roll-out {state.attempt} of {state.model}: version {state.challenger} beside"
    table = new_table(
        f"{title} champion {state.champion}",
        *("stage", "pairs", "figure", "value", "bound", "limit", "verdict"),
    )
    for stage in rollout.stages:
        about = (stage.stage, str(stage.pairs))
        for check in stage.checks:
            figures = (number(value) for value in (check.value, check.bound, check.limit))
            verdict = check.verdict + (f": {check.reason}" if check.reason else "")
            table.add_row(*about, check.figure, *figures, escape(verdict))
            about = ("", "")
        table.add_row(*about, "", "", "", "", stage.verdict, end_section=True)
    console.print(table)
    console.print(f"status      {_status(state)}")
    if state.reason:
        console.print(f"because     {state.reason}", markup=False, soft_wrap=True)
    console.print(f"records     {rollout.records}", markup=False, soft_wrap=True)


def show_assignment(console: Console, found: Assignment) -> None:
    """The version that serves a request."""
    told = f"version {found.version}  {found.side}, share {found.share:.0%}"
    console.print(told, highlight=False)


def _status(state: RolloutState) -> str:
    """The roll-out's status, with the challenger's share unless it was promoted."""
    share = "" if state.status == "promoted" else f", share {state.share:.0%}"
    return f"{state.status}{share}"
