"""A roll-out in progress: replay a stage, decide on it, and save the state in the registry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from prefect.events import emit_event

from layerwright.flows.session.champion import now, promote_champion
from layerwright.flows.session.rollouts import PreparedRollout
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.rollout import RolloutState, Side, StageDecision
from layerwright.tasks.device import resolve_device
from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.register.moves import PromotionError
from layerwright.tasks.register.promotion import Promotable, approved_by_policy, promotable
from layerwright.tasks.register.versions import Address, checkpoint_of, store_of
from layerwright.tasks.rollout.answering import Respondent
from layerwright.tasks.rollout.replay import SIDES, StageRecords, read_for, replay
from layerwright.tasks.rollout.stage import (
    judge_stage,
    log_ended,
    next_state,
    rolled_back,
    stopped,
)
from layerwright.tasks.rollout.state import decisions_of, mark_stopped, write_decision, write_state
from layerwright.tasks.store.open import open_store
from layerwright.tasks.tracking import connect

logger = logging.getLogger("layerwright")


@dataclass
class Course:
    """A roll-out in progress.

    Every step is in the registry before the next begins, and every request on disk: a roll-out
    that was killed continues where it stopped.
    """

    ready: PreparedRollout
    state: RolloutState

    @property
    def folder(self) -> Path:
        state = self.state
        name = f"{quote(state.model, safe='')}-{state.challenger}-{state.attempt}"
        return self.ready.place.paths.rollout(name)

    def look(self) -> None:
        """Take one look at the current stage: replay, decide, then advance, repeat or roll back."""
        state, stage = self.state, self.ready.policy.stages[self.state.stage]
        if why := self._obstacle():
            self._go(rolled_back(state, why, now()))
            return
        wanted, ahead = stage.requests * state.look, self.ready.requests[state.begin :]
        count, pairs = read_for(ahead, state.model, stage, wanted)
        logger.info("%s, look %d: %d requests", stage.name, state.look, count)
        records = StageRecords(self.folder / f"stage-{state.stage}.jsonl")
        served = replay(ahead[:count], state.model, stage, records, lambda: self._sides)
        if pairs < wanted:
            decision = log_ended(served, stage, state.look, now=now())
        else:
            decision = judge_stage(
                served, stage, state.look, self.ready.policy, now=now(), seed=self.ready.place.seed
            )
        logger.info("%s, look %d: %s %s", stage.name, state.look, decision.verdict, decision.reason)
        with connect(self.ready.registry.tracking_uri) as client:
            write_decision(client, state, decision)
        read = self.ready.requests[: state.begin + count]
        self._go(next_state(state, decision, self.ready.policy, read, now()), decision)

    def promote(self) -> Move | None:
        """After the last stage: promote the challenger, or roll back if the registry refuses."""
        state, move = self.state, None
        try:
            address = Address(state.model, version=state.challenger)
            move = promote_champion(address, self.ready.registry, self._approval)
        except (PromotionError, IntegrityError) as error:
            self._go(rolled_back(state, str(error), now()))
        else:
            self._go(state.model_copy(update={"status": "promoted", "reason": ""}))
        return move

    def _approval(self, found: Promotable) -> Approval:
        """The approval by the roll-out's policy; its reason lists the stages that were passed."""
        state = self.state
        with connect(self.ready.registry.tracking_uri) as client:
            passed = decisions_of(client, state)
        told = ", ".join(f"{one.stage} on {one.pairs} pairs" for one in passed)
        said = approved_by_policy(self.ready.policy.approval, found, now())
        reason = f"{said.reason} (roll-out {state.attempt} passed: {told})"
        return said.model_copy(update={"reason": reason})

    def _obstacle(self) -> str:
        """The reason why the version can no longer be promoted; empty if it can."""
        state = self.state
        address = Address(state.model, version=state.challenger)
        with connect(self.ready.registry.tracking_uri) as client:
            try:
                found = promotable(client, address, self.ready.registry.champion, now())
                if not found.is_champion:
                    approved_by_policy(self.ready.policy.approval, found, now())
            except PromotionError as error:
                return str(error)
        if found.champion != state.champion:
            return f"version {found.champion} is the champion now, and was {state.champion}"
        return ""

    @cached_property
    def _sides(self) -> Mapping[Side, Respondent]:
        """Both versions, loaded and verified from the stores that the registry names."""
        state = self.state
        versions: dict[Side, str] = {"champion": state.champion, "challenger": state.challenger}
        device = resolve_device(self.ready.recipe.compute.of("evaluate").device)
        with connect(self.ready.registry.tracking_uri) as client:
            checkpoints = {
                side: checkpoint_of(client.get_model_version(state.model, versions[side]))
                for side in SIDES
            }
        folders = {
            side: open_store(store_of(one), self.ready.place.paths.trees).open_tree(one.sha256)
            for side, one in checkpoints.items()
        }
        return {
            side: Respondent(folders[side], self.ready.policy, self.ready.recipe.price, device)
            for side in SIDES
        }

    def _go(self, state: RolloutState, decision: StageDecision | None = None) -> None:
        """Write the new state, then emit it as an event."""
        with connect(self.ready.registry.tracking_uri) as client:
            if state.status == "rolled back":
                mark_stopped(client, state, stopped(state, self.ready.policy))
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
