"""One move of a champion, one roll-out of a model at a time: MLflow has no compare-and-swap."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.settings import get_current_settings

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.tracking import SQLITE

LEASE_SECONDS = 60  # a holder that was killed keeps the slot no longer


@contextlib.contextmanager
def one_at_a_time(
    model: str, tracking_uri: str, wait_seconds: float = 120, work: str = "champion"
) -> Iterator[None]:
    """Hold the right to move a model's champion, or to other ``work`` on it, for the length of the
    block.

    A Prefect server gives it by a concurrency limit of one slot, whichever machine asks. Embedded,
    where the registry is a file, a lock file beside it does: the system frees it when its holder
    ends, however that ends.

    Raises:
        StepError: another has it for longer than ``wait_seconds``.
        InputError: an MLflow server, and no Prefect server that all who use it could ask.
    """
    name = f"layerwright-{work}-{hashlib.sha256(model.encode()).hexdigest()[:12]}"
    other = "promotion or rollback" if work == "champion" else work
    busy = f"another {other} of {model} has not ended in {wait_seconds:g} s"
    if get_current_settings().api.url:
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(name, limit=1)
        with contextlib.ExitStack() as stack:
            slot = concurrency(
                name, timeout_seconds=wait_seconds, lease_duration=LEASE_SECONDS, strict=True
            )
            try:
                stack.enter_context(slot)
            except TimeoutError as error:
                raise StepError(busy) from error
            yield
        return
    if not tracking_uri.startswith(SQLITE):
        raise InputError(
            f"nothing serialises promotions on {tracking_uri}",
            where="PREFECT_API_URL",
            expected="the Prefect server that all who promote there share",
        )
    folder = Path(tracking_uri.removeprefix(SQLITE)).parent / "promotions"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock", timeout=wait_seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise StepError(busy) from error
    try:
        yield
    finally:
        lock.release()
