"""Remove results and trees from a store if nothing needs them any more (`layerwright gc`).

It keeps the trees of registered versions, everything younger than a number of days, and the trees
that a kept result names. A run can read results of any age, so nothing is removed during a run.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from rich.console import Console

from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.register.versions import held_trees
from layerwright.tasks.store.base import Entry, Store
from layerwright.tasks.store.manifest import MANIFEST
from layerwright.tasks.store.open import open_store

_SHA256 = re.compile(rb"[0-9a-f]{64}")


class Cleaned(Contract):
    """The result of `gc`; after a dry run, the result that it would have."""

    removed: dict[str, int]  # a tree's digest -> its bytes
    results: int  # number of step results
    unfinished: int  # number of unfinished writes
    bytes: int
    kept: dict[str, str]  # a tree's digest -> the reason
    dry_run: bool


def clean(
    home: Home,
    store_uri: str | None,
    tracking_uri: str | None,
    *,
    days: float,
    dry: bool,
    abandoned: Iterable[str] = (),
    now: datetime | None = None,
) -> Cleaned:
    """Remove unneeded results and trees from a store; with ``dry``, only list them.

    Args:
        store_uri, tracking_uri: the recipes' store and MLflow; None for those of the home.
        days: everything younger is kept, so that runs on other machines lose nothing.
        abandoned: runs that are recorded as running, but will not be resumed.
        now: the current time; tests set it.

    InputError if a run has not ended, or a store was given without its registry.
    """
    if store_uri and tracking_uri is None:
        raise InputError(
            f"{store_uri} can hold versions of another registry than the home's",
            where="--tracking-uri",
            remedy="give the MLflow whose versions use that store",
        )
    for run in abandoned:
        RunFolder.find(home, run).finish("failed", "abandoned")
    running = [record.run_id for record in RunFolder.all(home) if record.state == "running"]
    if running:
        raise InputError(
            f"runs under way, or killed and not resumed: {', '.join(running)}",
            remedy="wait for it, `layerwright resume` it, or give --abandon RUN",
        )
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    store = open_store(store_uri or str(home.store), home.trees)
    old, kept = _results(store, before)
    kept |= held_trees(tracking_uri or home.tracking_uri)
    trees: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.entries("trees/"):
        trees[entry.key.split("/")[1]].append(entry)
    removed = {}
    for sha256, entries in trees.items():
        if sha256 in kept:
            continue
        if max(entry.modified for entry in entries) >= before:
            kept[sha256] = f"younger than {days:g} days"
            continue
        removed[sha256] = sum(entry.bytes for entry in entries)
        if not dry:
            # the manifest first, because readers ignore a tree without one
            keys = [entry.key for entry in entries]
            store.remove(sorted(keys, key=lambda key: not key.endswith(f"{sha256}/{MANIFEST}")))
    if not dry:
        store.remove([entry.key for entry in old])
    return Cleaned(
        removed=removed,
        results=len(old),
        unfinished=store.remove_unfinished(before, dry=dry),
        bytes=sum(removed.values()) + sum(entry.bytes for entry in old),
        kept=kept,
        dry_run=dry,
    )


def _results(store: Store, before: datetime) -> tuple[list[Entry], dict[str, str]]:
    """Results that are old enough to remove, and the trees that the other results name."""
    old, named = [], {}
    for prefix in ("results/", "handed/"):
        for entry in store.entries(prefix):
            if entry.modified < before:
                old.append(entry)
                continue
            for sha256 in _SHA256.findall(store.read(entry.key) or b""):
                named[sha256.decode()] = f"the result {entry.key.removeprefix(prefix)}"
    return old, named


def show_cleaned(console: Console, cleaned: Cleaned) -> None:
    """The trees that were kept and removed, and the bytes."""
    for sha256, why in cleaned.kept.items():
        console.print(f"kept        {sha256[:12]}  {why}", soft_wrap=True)
    for sha256, size in cleaned.removed.items():
        console.print(f"removed     {sha256[:12]}  {size / 1e6:,.1f} MB")
    removed = "would be removed" if cleaned.dry_run else "removed"
    console.print(
        f"{len(cleaned.removed)} trees, {cleaned.results} results and {cleaned.unfinished} "
        f"unfinished writes {removed}, {cleaned.bytes / 1e6:,.1f} MB"
    )
