"""A roll-out: check its recipe and its request log; replay and decide on its stages."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from layerwright.flows.session.champion import Registry, announce, now, promote_champion
from layerwright.flows.session.prepare import place_of
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.rollout import Request, RolloutState, Side, StageDecision
from layerwright.tasks.device import resolve_device
from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.home import Home
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.recipe.recipe import Recipe, load_recipe
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.recipe.rollout import RolloutPolicy
from layerwright.tasks.register.moves import PromotionError
from layerwright.tasks.register.promotion import Promotable, approved_by_policy, promotable
from layerwright.tasks.register.versions import Address, checkpoint_of, store_of
from layerwright.tasks.rollout import stage as stages
from layerwright.tasks.rollout.answering import Respondent
from layerwright.tasks.rollout.replay import SIDES, StageRecords, read_for, read_log, replay
from layerwright.tasks.rollout.state import decisions_of, mark_stopped, write_decision, write_state
from layerwright.tasks.store.open import open_store
from layerwright.tasks.tracking import connect, refuse_missing

logger = logging.getLogger("layerwright")


@dataclass(frozen=True)
class PreparedRollout:
    """A roll-out that can start."""

    recipe: Recipe
    policy: RolloutPolicy
    options: RegisterOptions
    requests: tuple[Request, ...]
    registry: Registry
    place: Place


def prepare_rollout(
    model: str, path: Path, assignments: list[str], log: Path, home: Home
) -> PreparedRollout:
    """Read a recipe and a request log; check that they have everything that the policy needs.
    InputError if one of them is wrong, or there is no registry; nothing was written.
    """
    recipe, document = load_recipe(path, assignments)
    for block in ("rollout", "registry"):
        if getattr(recipe, block) is None:
            raise InputError(
                f"a roll-out needs the block {block!r}",
                where=document.place((block,)),
                remedy="add it; docs/rollout.md has an example",
            )
    policy, options = recipe.rollout, recipe.registry
    assert policy is not None
    assert options is not None
    requests = read_log(log)
    if policy.limit("cost") and recipe.price is None:
        raise InputError(
            "a limit on cost needs a price",
            where=document.place(("rollout", "limits")),
            expected="price: {device_hour: 2.5, currency: USD}",
        )
    if policy.limit("match") and not any(one.reference is not None for one in requests):
        raise InputError(
            "a limit on match needs references",
            where=str(log),
            expected='requests with a "reference"',
        )
    first = policy.stages[0]
    _, pairs = read_for(requests, model, first, first.requests)
    if pairs < first.requests:
        raise InputError(
            f"the log's {len(requests)} requests give {pairs} pairs of answers at the stage "
            f"{first.name}",
            where=str(log),
            expected=f"enough for the first look, {first.requests}",
        )
    place = place_of(recipe, home)
    assert place.tracking_uri is not None  # place_of set it
    refuse_missing(place.tracking_uri)
    registry = Registry(home=str(home), tracking_uri=place.tracking_uri, champion=options.champion)
    return PreparedRollout(recipe, policy, options, requests, registry, place)


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
            self._go(stages.rolled_back(state, why, now()))
            return
        wanted, ahead = stage.requests * state.look, self.ready.requests[state.begin :]
        count, pairs = read_for(ahead, state.model, stage, wanted)
        logger.info("%s, look %d: %d requests", stage.name, state.look, count)
        records = StageRecords(self.folder / f"stage-{state.stage}.jsonl")
        served = replay(ahead[:count], state.model, stage, records, lambda: self._sides)
        policy, seed = self.ready.policy, self.ready.place.seed
        if pairs < wanted:
            decision = stages.log_ended(served, stage, state.look, now=now())
        else:
            decision = stages.judge_stage(served, stage, state.look, policy, now=now(), seed=seed)
        logger.info("%s, look %d: %s %s", stage.name, state.look, decision.verdict, decision.reason)
        with connect(self.ready.registry.tracking_uri) as client:
            write_decision(client, state, decision)
        read = self.ready.requests[: state.begin + count]
        self._go(stages.next_state(state, decision, policy, read, now()), decision)

    def promote(self) -> Move | None:
        """After the last stage: promote the challenger, or roll back if the registry refuses."""
        state = self.state
        try:
            address = Address(state.model, version=state.challenger)
            move = promote_champion(address, self.ready.registry, self._approval)
        except (PromotionError, IntegrityError) as error:
            self._go(stages.rolled_back(state, str(error), now()))
            return None
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
        ready, state = self.ready, self.state
        versions: dict[Side, str] = {"champion": state.champion, "challenger": state.challenger}
        device = resolve_device(ready.recipe.compute.of("evaluate").device)
        with connect(ready.registry.tracking_uri) as client:
            found = {side: client.get_model_version(state.model, versions[side]) for side in SIDES}
        trees = {side: checkpoint_of(one) for side, one in found.items()}
        kept = ready.place.paths.trees
        folders = {
            side: open_store(store_of(t), kept).open_tree(t.sha256) for side, t in trees.items()
        }
        return {
            side: Respondent(folder, ready.policy, ready.recipe.price, device)
            for side, folder in folders.items()
        }

    def _go(self, state: RolloutState, decision: StageDecision | None = None) -> None:
        """Write the new state, then emit it as an event."""
        with connect(self.ready.registry.tracking_uri) as client:
            if state.status == "rolled back":
                mark_stopped(client, state, stages.stopped(state, self.ready.policy))
            write_state(client, state)
        self.state = state
        told = decision.model_dump(mode="json") if decision else None
        payload = {"state": state.model_dump(mode="json"), "decision": told}
        announce("layerwright.rollout", state.model, state.challenger, payload)
