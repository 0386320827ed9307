"""From a command or a deployment to the rollout flow, and to the share that it has reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerwright.flows.command_line.champion_moves import registry_at
from layerwright.flows.session import embedded
from layerwright.tasks.contracts.rollout import Request
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe, load_recipe


def run_rollout(
    model: str,
    path: Path,
    assignments: list[str],
    log: Path,
    home: Path,
    restart: bool = False,
) -> dict[str, Any]:
    """Check recipe and log, then run the rollout flow.

    Returns:
        The RolloutResult as JSON.

    Raises:
        InputError: the recipe or the log is wrong; nothing was started and nothing written.
    """
    recipe, document = load_recipe(path, assignments)
    for block in ("rollout", "registry"):
        if getattr(recipe, block) is None:
            raise InputError(
                f"a roll-out needs the block {block!r}",
                where=document.place((block,)),
                remedy="docs/rollout.md has one",
            )
    from layerwright.tasks.rollout.request_log import read_log

    _check(recipe, document, model, read_log(log), log)
    assert recipe.registry is not None
    home = home.resolve()
    registry = registry_at(home, recipe.registry.tracking_uri, recipe.registry.champion)
    from layerwright.flows.rollout import rollout
    from layerwright.tasks.orchestration.place import Place

    place = Place(
        home=str(home),
        store=recipe.store or str(home / "store"),
        seed=recipe.seed,
        compute=recipe.compute,
    )
    with embedded.Server(home):
        found = rollout(recipe, model, str(log.resolve()), registry, place, restart)
    return found.model_dump(mode="json")


def _check(
    recipe: Recipe, document: Located, model: str, requests: tuple[Request, ...], log: Path
) -> None:
    """What the policy asks for must be there."""
    from layerwright.tasks.rollout.replay import read_for

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


def read_assignment(
    model: str, request_id: str, home: Path, tracking_uri: str | None, champion: str
) -> dict[str, Any]:
    """Which version serves a request at the share that the registry says now."""
    registry = registry_at(home, tracking_uri, champion)
    from layerwright.tasks.rollout.assignment import assign
    from layerwright.tasks.rollout.state import live_share
    from layerwright.tasks.tracking import connect

    with connect(registry.tracking_uri) as client:
        live = live_share(client, model, registry.champion)
    side = assign(model, request_id, live.share)
    version = live.challenger if side == "challenger" else live.champion
    return {
        "model": model,
        "request_id": request_id,
        "side": side,
        "version": version,
        "share": live.share,
    }
