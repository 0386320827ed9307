"""Lock a registered model, so that it has one champion move or roll-out at a time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from filelock import FileLock, Timeout
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.settings import get_current_settings

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.home import SQLITE, Home

LEASE_SECONDS = 60  # Prefect frees the slot of a killed holder after this time


@contextlib.contextmanager
def one_at_a_time(
    model: str, tracking_uri: str, wait_seconds: float = 120, work: str = "champion"
) -> Iterator[None]:
    """Hold a model's lock for the length of the block: for its champion, or for other ``work``.

    With a Prefect server the lock is a concurrency limit of one slot, for all machines. Without
    one, the registry is a file, and the lock is a file beside it, which the system releases when
    its holder ends.

    Raises:
        StepError: another process holds it for longer than ``wait_seconds``.
        InputError: an MLflow server without a Prefect server that its users share.
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
            f"no lock protects promotions on {tracking_uri}",
            where="PREFECT_API_URL",
            expected="the Prefect server that is shared by all who promote there",
        )
    folder = Home.beside(tracking_uri).promotions
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
