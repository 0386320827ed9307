"""Check that the Prefect server of the environment answers and accepts our credentials."""

from __future__ import annotations

import os

import httpx

from layerwright.tasks.errors import InputError, StepError

REFUSED = (401, 403)


def refuse_closed_server() -> None:
    """Make one request to the server; none if the environment names no server.

    Raises:
        InputError: the server rejects our credentials.
        StepError: the server does not answer, or has an incompatible version.
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
        if error.response.status_code not in REFUSED:
            raise StepError(f"the Prefect server at {api}: {error}") from error
        raise InputError(
            f"the Prefect server at {api} rejected our credentials",
            where="PREFECT_API_URL",
            expected="the server's own user:password in PREFECT_API_AUTH_STRING, or Prefect "
            "Cloud's PREFECT_API_KEY",
        ) from error
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client's version check
        raise StepError(f"the Prefect server at {api} does not answer: {error}") from error
