"""The rollout flow: a challenger gets a growing share of a request log, and becomes champion or
goes back, by policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from prefect import flow
from prefect.events import emit_event

from layerwright.flows.promote import Registry, promote
from layerwright.flows.session.serialised import one_at_a_time
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.rollout import (
    Request,
    RolloutResult,
    RolloutState,
    Side,
    StageDecision,
)
from layerwright.tasks.device import resolve_device
from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.recipe.rollout import RolloutPolicy
from layerwright.tasks.register.moves import PromotionError
from layerwright.tasks.register.promotion import approved_by_policy, promotable
from layerwright.tasks.register.versions import Address, checkpoint_of, store_of
from layerwright.tasks.rollout.answering import Respondent
from layerwright.tasks.rollout.course import log_ended, next_state, rolled_back, stopped
from layerwright.tasks.rollout.replay import SIDES, read_for, replay
from layerwright.tasks.rollout.request_log import read_log
from layerwright.tasks.rollout.stage import judge_stage
from layerwright.tasks.rollout.stage_records import StageRecords
from layerwright.tasks.rollout.start import open_rollout
from layerwright.tasks.rollout.state import decisions_of, mark_stopped, write_decision, write_state
from layerwright.tasks.store.open import open_store
from layerwright.tasks.tracking import connect

logger = logging.getLogger("layerwright")


@flow(name="rollout", flow_run_name="roll out {model}", validate_parameters=False)
def rollout(
    recipe: Recipe, model: str, log: str, registry: Registry, place: Place, restart: bool = False
) -> RolloutResult:
    """Stage after stage: replay, judge, advance; at the end promote, at a regression go back.

    Every step is in the registry before the next begins, and every request on disk: the same
    call goes on where a killed one stopped.

    Args:
        log: path of the request log.
        restart: begin again, whatever became of an earlier roll-out of the version.

    Raises:
        InputError, PromotionError: see `open_rollout`.
    """
    assert recipe.rollout is not None  # checked before it started
    assert recipe.registry is not None
    requests, policy, uri = read_log(log), recipe.rollout, registry.tracking_uri
    with one_at_a_time(model, uri, work="roll-out"):
        with connect(uri) as client:
            state = open_rollout(
                client, model, recipe.registry, policy, requests, now=_now(), restart=restart
            )
        course, move = _Course(recipe, policy, requests, registry, place, state), None
        while course.state.status == "running":
            if course.state.stage < len(policy.stages):
                course.stage()
            else:
                move = course.promote()
        with connect(uri) as client:
            decisions = decisions_of(client, course.state)
    return RolloutResult(
        state=course.state, stages=decisions, move=move, records=str(course.folder)
    )


@dataclass
class _Course:
    """One roll-out under way."""

    recipe: Recipe
    policy: RolloutPolicy
    requests: tuple[Request, ...]
    registry: Registry
    place: Place
    state: RolloutState

    @property
    def folder(self) -> Path:
        state = self.state
        name = f"{quote(state.model, safe='')}-{state.challenger}-{state.attempt}"
        return Path(self.place.home) / "rollouts" / name

    def stage(self) -> None:
        """One look at the stage that the roll-out is at, and the step that follows from it."""
        state, stage = self.state, self.policy.stages[self.state.stage]
        if why := self._obstacle():
            self._go(rolled_back(state, why, _now()))
            return
        wanted, ahead = stage.requests * state.look, self.requests[state.begin :]
        count, pairs = read_for(ahead, state.model, stage, wanted)
        logger.info("%s, look %d: %d requests", stage.name, state.look, count)
        records = StageRecords(self.folder / f"stage-{state.stage}.jsonl")
        served = replay(ahead[:count], state.model, stage, records, lambda: self._sides)
        if pairs < wanted:
            decision = log_ended(stage, state.look, served, pairs, _now())
        else:
            decision = judge_stage(
                served, stage, state.look, self.policy, now=_now(), seed=self.place.seed
            )
        logger.info("%s, look %d: %s %s", stage.name, state.look, decision.verdict, decision.reason)
        with connect(self.registry.tracking_uri) as client:
            write_decision(client, state, decision)
        read = self.requests[: state.begin + count]
        self._go(next_state(state, decision, self.policy, read, _now()), decision)

    def promote(self) -> Move | None:
        """All stages have passed. Where the registry does not let it become champion by now, it
        goes back."""
        state, move = self.state, None
        try:
            move = promote(
                state.model, self.registry, version=state.challenger, approval=self._approval()
            )
        except (PromotionError, IntegrityError) as error:
            self._go(rolled_back(state, str(error), _now()))
        else:
            self._go(state.model_copy(update={"status": "promoted", "reason": ""}))
        return move

    def _approval(self) -> Approval:
        state, policy = self.state, self.policy
        address = Address(state.model, version=state.challenger)
        with connect(self.registry.tracking_uri) as client:
            found = promotable(client, address, self.registry.champion, _now())
            passed = decisions_of(client, state)
        told = ", ".join(f"{one.stage} on {one.pairs} pairs" for one in passed)
        said = Approval(by=policy.approval.author, reason=policy.approval.reason, how="policy")
        if not found.is_champion:
            said = approved_by_policy(policy.approval, found, _now())
        reason = f"{said.reason} (roll-out {state.attempt} passed: {told})"
        return said.model_copy(update={"reason": reason})

    def _obstacle(self) -> str:
        """Why the version would not be promoted any more; nothing where it would."""
        state = self.state
        address = Address(state.model, version=state.challenger)
        with connect(self.registry.tracking_uri) as client:
            try:
                found = promotable(client, address, self.registry.champion, _now())
                if not found.is_champion:
                    approved_by_policy(self.policy.approval, found, _now())
            except PromotionError as error:
                return str(error)
        if found.champion != state.champion:
            return f"version {found.champion} is the champion now, and was {state.champion}"
        return ""

    @cached_property
    def _sides(self) -> Mapping[Side, Respondent]:
        """Both versions, loaded from where the registry says that they lie, and checked."""
        state = self.state
        versions: dict[Side, str] = {"champion": state.champion, "challenger": state.challenger}
        device = resolve_device(self.recipe.compute.of("evaluate").device)
        with connect(self.registry.tracking_uri) as client:
            checkpoints = {
                side: checkpoint_of(client.get_model_version(state.model, versions[side]))
                for side in SIDES
            }
        folders = {
            side: open_store(store_of(one), self.place.tree_cache).open_tree(one.sha256)
            for side, one in checkpoints.items()
        }
        return {
            side: Respondent(folders[side], self.policy, self.recipe.price, device)
            for side in SIDES
        }

    def _go(self, state: RolloutState, decision: StageDecision | None = None) -> None:
        """Write the new state, then tell who listens."""
        with connect(self.registry.tracking_uri) as client:
            if state.status == "rolled back":
                mark_stopped(client, state, stopped(state, self.policy))
            write_state(client, state)
        self.state = state
        told = decision.model_dump(mode="json") if decision else None
        emit_event(
            "layerwright.rollout",
            resource={
                "prefect.resource.id": f"layerwright.model.{state.model}",
                "prefect.resource.name": state.model,
                "layerwright.version": state.challenger,
            },
            payload={"state": state.model_dump(mode="json"), "decision": told},
        )


def _now() -> datetime:
    return datetime.now(UTC)
