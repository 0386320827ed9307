"""Locks for steps shared between runs; a lock is released when its holder dies.

Prefect's own locks outlive a killed holder, so the next run of the same step would wait forever.
"""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout
from prefect.locking.protocol import LockManager

LEASE_SECONDS = 60.0
Seconds = float | None  # None: no limit


class FileLocks(LockManager):
    """Locks on one machine. The operating system releases those of a dead process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, tuple[FileLock, str]] = {}

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: Seconds = None, hold_timeout: Seconds = None
    ) -> bool:
        if self.is_lock_holder(key, holder):
            return True
        lock = self._lock(key)
        if not _acquired(lock, acquire_timeout):
            return False
        self._held[key] = lock, holder
        return True

    def release_lock(self, key: str, holder: str) -> None:
        if not self.is_lock_holder(key, holder):
            raise ValueError(f"{holder} does not hold the lock of {key}")
        self._held.pop(key)[0].release()

    def is_locked(self, key: str) -> bool:
        return key in self._held or not self.wait_for_lock(key, 0)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        return key in self._held and self._held[key][1] == holder

    def wait_for_lock(self, key: str, timeout: Seconds = None) -> bool:
        lock = self._lock(key)
        if not _acquired(lock, timeout):
            return False
        lock.release()
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: Seconds = None, hold_timeout: Seconds = None
    ) -> bool:
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout)

    async def await_for_lock(self, key: str, timeout: Seconds = None) -> bool:
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)

    def _lock(self, key: str) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f"{quote(key, safe='')}.lock", thread_local=False)


def _acquired(lock: FileLock, timeout: Seconds) -> bool:
    try:
        lock.acquire(timeout=-1 if timeout is None else timeout)
    except Timeout:
        return False
    return True


def redis_locks(url: str) -> LockManager:
    """Locks across machines, in Redis: leases that the holder renews while it lives."""
    from prefect_redis import RedisLockManager  # an optional dependency

    class LeasedLocks(RedisLockManager):
        def acquire_lock(
            self,
            key: str,
            holder: str,
            acquire_timeout: Seconds = None,
            hold_timeout: Seconds = None,
        ) -> bool:
            if not super().acquire_lock(key, holder, acquire_timeout, LEASE_SECONDS):
                return False
            lock = self._locks[self._lock_name_for_key(key)]
            threading.Thread(target=_renew, args=(lock,), daemon=True).start()
            return True

    return LeasedLocks(connection_url=url)


def _renew(lock: Any) -> None:
    """Renew a lease until the lock is released, or lost because the server restarted."""
    from redis.exceptions import LockError, RedisError

    while lock.local.token is not None:
        try:
            lock.reacquire()
        except LockError:
            return
        except RedisError:
            pass  # try again before the lease ends
        time.sleep(LEASE_SECONDS / 3)
