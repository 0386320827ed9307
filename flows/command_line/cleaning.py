"""`layerwright gc`: what a store keeps and nothing needs any more.

Kept: whatever a registered version stands on, what is younger than some days, and what a result
that is kept names. A run that is under way may read results of any age: nothing is removed beside
one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.errors import InputError
from layerwright.tasks.register.held import held_trees
from layerwright.tasks.store.base import Entry, Store
from layerwright.tasks.store.manifest import MANIFEST
from layerwright.tasks.store.open import open_store

_SHA256 = re.compile(rb"[0-9a-f]{64}")


def clean(
    home: Path,
    store_uri: str | None,
    tracking_uri: str | None,
    *,
    days: float,
    dry: bool,
    abandoned: Iterable[str] = (),
    now: datetime | None = None,
) -> dict[str, Any]:
    """Remove what is not kept; with ``dry``, only say what that would be.

    Args:
        store_uri, tracking_uri: those of the recipes; None for those of the home.
        days: what is younger is kept, so that runs on other machines lose nothing.
        abandoned: runs that are recorded as running, and will not be gone on with.
        now: for tests.

    Returns:
        ``removed`` (trees by digest, with bytes), ``results``, ``unfinished``, ``bytes``, ``kept``
        (trees by digest, with what keeps them) and ``dry_run``.

    Raises:
        InputError: a run is under way; or a store without its registry.
    """
    if store_uri and tracking_uri is None:
        raise InputError(
            f"{store_uri} may hold the versions of another registry than the home's",
            where="--tracking-uri",
            remedy="give the MLflow whose versions stand on that store",
        )
    for run in abandoned:
        RunFolder.find(home, run).finish("failed", "abandoned")
    _refuse_beside_runs(home)
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    store = open_store(store_uri or str(home / "store"), home / "cache" / "trees")
    old, kept = _results(store, before)
    kept |= held_trees(tracking_uri or f"sqlite:///{home}/mlflow.db")
    removed = {}
    for sha256, entries in _trees(store).items():
        if sha256 in kept:
            continue
        if max(entry.modified for entry in entries) >= before:
            kept[sha256] = f"younger than {days:g} days"
            continue
        removed[sha256] = sum(entry.bytes for entry in entries)
        if not dry:
            # without its manifest a tree does not exist: one that is half removed is not read
            keys = [entry.key for entry in entries]
            store.remove(sorted(keys, key=lambda key: not key.endswith(f"{sha256}/{MANIFEST}")))
    if not dry:
        store.remove([entry.key for entry in old])
    return {
        "removed": removed,
        "results": len(old),
        "unfinished": store.remove_unfinished(before, dry=dry),
        "bytes": sum(removed.values()) + sum(entry.bytes for entry in old),
        "kept": kept,
        "dry_run": dry,
    }


def _refuse_beside_runs(home: Path) -> None:
    running = [record.run_id for record in RunFolder.all(home) if record.state == "running"]
    if running:
        raise InputError(
            f"under way, or killed and not gone on with: {', '.join(running)}",
            remedy="let it end, `layerwright resume` it, or give --abandon RUN",
        )


def _results(store: Store, before: datetime) -> tuple[list[Entry], dict[str, str]]:
    """Results that are old enough to go, and the trees that the others name."""
    old, named = [], {}
    for prefix in ("results/", "handed/"):
        for entry in store.entries(prefix):
            if entry.modified < before:
                old.append(entry)
                continue
            for sha256 in _SHA256.findall(store.read(entry.key) or b""):
                named[sha256.decode()] = f"the result {entry.key.removeprefix(prefix)}"
    return old, named


def _trees(store: Store) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.entries("trees/"):
        found[entry.key.split("/")[1]].append(entry)
    return found
