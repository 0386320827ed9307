"""Prepare a roll-out: read and check its recipe and its request log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerwright.flows.session.champion import Registry
from layerwright.flows.session.prepare import place_of
from layerwright.tasks.contracts.rollout import Request
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe, load_recipe
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.recipe.rollout import RolloutPolicy
from layerwright.tasks.rollout.replay import read_for, read_log
from layerwright.tasks.tracking import refuse_missing


@dataclass(frozen=True)
class PreparedRollout:
    """A roll-out that can start: recipe, policy, requests, registry and place."""

    recipe: Recipe
    policy: RolloutPolicy
    options: RegisterOptions
    requests: tuple[Request, ...]
    registry: Registry
    place: Place


def prepare_rollout(
    model: str, path: Path, assignments: list[str], log: Path, home: Home
) -> PreparedRollout:
    """Read and check a recipe and a request log.

    Raises:
        InputError: one of them is wrong, or there is no registry; nothing was written.
    """
    recipe, document = load_recipe(path, assignments)
    for block in ("rollout", "registry"):
        if getattr(recipe, block) is None:
            raise InputError(
                f"a roll-out needs the block {block!r}",
                where=document.place((block,)),
                remedy="add it; docs/rollout.md has an example",
            )
    assert recipe.rollout is not None
    assert recipe.registry is not None
    requests = read_log(log)
    _check(recipe, document, model, requests, log)
    place = place_of(recipe, home)
    assert place.tracking_uri is not None  # place_of set it
    refuse_missing(place.tracking_uri)
    champion = recipe.registry.champion
    registry = Registry(home=str(home), tracking_uri=place.tracking_uri, champion=champion)
    return PreparedRollout(recipe, recipe.rollout, recipe.registry, requests, registry, place)


def _check(
    recipe: Recipe, document: Located, model: str, requests: tuple[Request, ...], log: Path
) -> None:
    """Check that the recipe and the requests have everything that the policy needs."""
    policy = recipe.rollout
    assert policy is not None
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
