"""Our own events, as the Prefect server that tests share keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
from layerwright_process import SERVER

Event = tuple[str, dict[str, Any]]  # its name and payload


def events(since: datetime, last: Callable[[Event], bool], seconds: float = 30) -> list[Event]:
    """Those since then, oldest first, once ``last`` is there: the server stores in batches."""
    asked = {
        "filter": {
            "event": {"prefix": ["layerwright."]},
            "occurred": {"since": since.isoformat()},
            "order": "ASC",
        }
    }
    user, password = SERVER["PREFECT_API_AUTH_STRING"].split(":")
    account = httpx.BasicAuth(user, password)
    end = time.monotonic() + seconds
    while True:
        answer = httpx.post(f"{SERVER['PREFECT_API_URL']}/events/filter", json=asked, auth=account)
        found = [
            (one["event"], one["payload"]) for one in answer.raise_for_status().json()["events"]
        ]
        if found and last(found[-1]):
            return found
        assert time.monotonic() < end, f"the last never came: {found}"
        time.sleep(0.3)
