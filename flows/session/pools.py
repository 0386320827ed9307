"""Check before a run starts that the work pools of its recipe exist."""

from __future__ import annotations

import os
from collections.abc import Iterator

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName

from layerwright.flows.session.prefect_server import refuse_closed_server
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe


def check_pools(recipe: Recipe, document: Located) -> None:
    """Check that a server answers and has a deployment ``step/<pool>`` for every pool.

    Raises:
        InputError: with file, line and field; or the server rejects our credentials.
        StepError: the server does not answer.
    """
    wanted = dict(_pools(recipe))
    if not wanted:
        return
    if not os.environ.get("PREFECT_API_URL"):
        where, pool = next(iter(wanted.items()))
        raise InputError(
            f"the pool {pool!r} needs a Prefect server, and PREFECT_API_URL names none",
            where=document.place(where),
            remedy="set PREFECT_API_URL, or `where: inline`",
        )
    known = _deployed()
    for where, pool in wanted.items():
        if pool not in known:
            raise InputError(
                f"the Prefect server has no deployment 'step/{pool}'",
                where=document.place(where),
                expected=f"one of {', '.join(sorted(known))}" if known else "a pool with workers",
                remedy="python -m layerwright.infra.bootstrap (docs/operations.md)",
            )


def _pools(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    compute = recipe.compute
    if compute.default.pool:
        yield ("compute", "default", "pool"), compute.default.pool
    for step, placement in compute.steps.items():
        if placement.pool:
            yield ("compute", "steps", step, "pool"), placement.pool


def _deployed() -> set[str]:
    """The pools that can run steps."""
    refuse_closed_server()
    with get_client(sync_client=True) as client:
        found = client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=["step"])))
    return {deployment.name for deployment in found}
