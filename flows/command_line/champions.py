"""Move champions and roll out challengers; print moves, versions, roll-outs and assignments."""

from __future__ import annotations

import importlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape

from layerwright.flows.command_line.options import new_table, number
from layerwright.flows.session import embedded
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.rollout import RolloutResult, RolloutState, Side
from layerwright.tasks.errors import InputError, Interrupted
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.recipe import load_recipe
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.register.history import History
from layerwright.tasks.tracking import refuse_missing

if TYPE_CHECKING:
    from layerwright.flows.session.champion import Registry


class Moved(Move):
    """A move of a champion."""

    moved: Literal[True] = True


class Unmoved(Contract):
    """No move: the version was champion already."""

    moved: Literal[False] = False
    model: str
    alias: str


class Assignment(Contract):
    """The version that serves a request, at the challenger's share."""

    model: str
    request_id: str
    side: Side
    version: str
    share: float


def registry_at(home: Home, tracking_uri: str | None, champion: str) -> Registry:
    """The registry that a command uses; InputError if there is none: it may only be read."""
    embedded.configure(home)
    from layerwright.flows.session.champion import Registry

    uri = tracking_uri or home.tracking_uri
    refuse_missing(uri)
    return Registry(home=str(home), tracking_uri=uri, champion=champion)


def approval_from(
    approve_by: str | None, reason: str | None, recipe: Path | None, ask: bool
) -> Approval | ApprovalPolicy | Literal["ask"]:
    """The approval that a command's options give; InputError if there is not exactly one approval,
    or the recipe has no policy.
    """
    ways = [bool(approve_by or reason), recipe is not None, ask]
    if sum(ways) != 1:
        raise InputError(
            "a promotion needs one approval" + (", not several" if sum(ways) else ""),
            expected="--approve-by NAME --reason TEXT, or --recipe RECIPE with a policy, or --ask",
        )
    if recipe is not None:
        read, document = load_recipe(recipe, components=False)
        if read.registry is None or read.registry.approval is None:
            raise InputError(
                "the recipe has no policy for approval",
                where=document.place(("registry", "approval")),
                expected="approval: {author: NAME, reason: TEXT, tiers: [standard]}",
            )
        return read.registry.approval
    if ask:
        if not os.environ.get("PREFECT_API_URL"):
            raise InputError(
                "nobody can answer: the embedded Prefect server ends with the command",
                where="--ask",
                expected="PREFECT_API_URL, a Prefect server that people use",
            )
        return "ask"
    if not approve_by or not reason:
        raise InputError(
            "an approval needs a name and a reason", expected="--approve-by and --reason"
        )
    return Approval(by=approve_by, reason=reason)


def move(flow: str, model: str, registry: Registry, **parameters: Any) -> Moved | Unmoved:
    """Run the flow promote or rollback."""
    moving = getattr(importlib.import_module("layerwright.flows.promote"), flow)
    with embedded.Server(Home(Path(registry.home))):
        moved = moving(model, registry, **parameters)
    if moved is None:
        return Unmoved(model=model, alias=registry.champion)
    return Moved(**dict(moved))


def read_history(model: str, registry: Registry) -> History:
    """A model's versions and moves."""
    from layerwright.tasks.register.history import history_of
    from layerwright.tasks.tracking import connect

    with connect(registry.tracking_uri) as client:
        return history_of(client, model, registry.champion, datetime.now(UTC))


def run_rollout(
    model: str, recipe: Path, assignments: list[str], log: Path, home: Home, restart: bool
) -> RolloutResult:
    """Check recipe and log, then run the rollout flow; InputError if the recipe or the log is
    wrong; nothing was started or written. Interrupted if the user pressed Ctrl-C.
    """
    embedded.configure(home)
    from layerwright.flows.rollout import rollout
    from layerwright.flows.session.rollouts import prepare_rollout

    prepare_rollout(model, recipe, assignments, log, home)
    with embedded.Server(home):
        try:
            # Prefect's overloads take a flow that returns Any for one that returns nothing
            return rollout(  # type: ignore[return-value]
                model, str(recipe), str(log), assignments, str(home), restart=restart
            )
        except KeyboardInterrupt:
            raise Interrupted(
                f"the answered requests of the roll-out of {model} are kept; `layerwright rollout` "
                "with the same arguments continues it"
            ) from None


def read_assignment(model: str, request_id: str, registry: Registry) -> Assignment:
    """The version that serves a request, at the share that is in the registry now."""
    from layerwright.tasks.rollout.assignment import assign
    from layerwright.tasks.rollout.state import live_share
    from layerwright.tasks.tracking import connect

    with connect(registry.tracking_uri) as client:
        live = live_share(client, model, registry.champion)
    side = assign(model, request_id, live.share)
    version = live.challenger if side == "challenger" else live.champion
    return Assignment(
        model=model, request_id=request_id, side=side, version=version, share=live.share
    )


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
