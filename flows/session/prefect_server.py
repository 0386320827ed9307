"""Check the Prefect server of the environment: its answer, our credentials, its work pools."""

import os
from typing import TYPE_CHECKING

import httpx

from layerwright.tasks.errors import InputError, StepError

if TYPE_CHECKING:
    from layerwright.tasks.recipe.document import Located
    from layerwright.tasks.recipe.recipe import Recipe


def refuse_closed_server() -> None:
    """Make one request to the server, if the environment names one; InputError if it rejects our
    credentials. StepError if it does not answer, or has an incompatible version.
    """
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            client.hello().raise_for_status()
    except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
        if error.response.status_code not in (401, 403):
            raise StepError(f"the Prefect server at {api}: {error}") from error
        raise InputError(
            f"the Prefect server at {api} rejected our credentials",
            where="PREFECT_API_URL",
            expected="the server's own user:password in PREFECT_API_AUTH_STRING, or Prefect "
            "Cloud's PREFECT_API_KEY",
        ) from error
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client's version check
        raise StepError(f"the Prefect server at {api} does not answer: {error}") from error


def check_pools(recipe: "Recipe", document: "Located") -> None:
    """Check that a server answers and has a deployment ``step/<pool>`` for every pool.

    InputError with file, line and field. Errors of the server as for `refuse_closed_server`.
    """
    placements = {"default": recipe.compute.default}
    placements |= {f"steps.{step}": placed for step, placed in recipe.compute.steps.items()}
    wanted = {
        document.place(("compute", *at.split("."), "pool")): placement.pool
        for at, placement in placements.items()
        if placement.pool
    }
    if not wanted:
        return
    if not os.environ.get("PREFECT_API_URL"):
        where, pool = next(iter(wanted.items()))
        raise InputError(
            f"the pool {pool!r} needs a Prefect server, and PREFECT_API_URL names none",
            where=where,
            remedy="set PREFECT_API_URL, or `where: inline`",
        )
    known = _pools_with_steps()
    for where, pool in wanted.items():
        if pool not in known:
            raise InputError(
                f"the Prefect server has no deployment 'step/{pool}'",
                where=where,
                expected=f"one of {', '.join(sorted(known))}" if known else "a pool with workers",
                remedy="python -m layerwright.infra.bootstrap (docs/operations.md)",
            )


def _pools_with_steps() -> set[str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    refuse_closed_server()
    with get_client(sync_client=True) as client:
        found = client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=["step"])))
    return {deployment.name for deployment in found}
