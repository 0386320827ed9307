"""Pin the sources of a recipe for the cache keys, and check them before a run starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from layerwright.flows.session.needs import texts_of_flow
from layerwright.flows.session.preflight import at_line
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.sources import Source, model_source, text_source
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe

WORKING_ROOM = 3  # copies of the model on disk at once: base, converted, tuned


def sources_of(recipe: Recipe, document: Located, *, flow: str) -> dict[str, Source]:
    """Every source that a flow will read: ``model`` and ``data.<name>``.

    Raises:
        InputError: no kind of source matches; the error names file and line.
    """
    bind: dict[str, Callable[[], Source]] = {
        "model": lambda: model_source(recipe.model, recipe.data_root)
    }
    for name in texts_of_flow(recipe, flow):
        bind[f"data.{name}"] = partial(text_source, recipe.data[name], recipe.data_root)
    found = {}
    for where, make in bind.items():
        try:
            found[where] = make()
        except InputError as error:
            raise at_line(error, document, f"{where}.source") from error
    return found


def pin_sources(sources: dict[str, Source], document: Located) -> dict[str, str]:
    """The identity of each source, for the cache keys.

    Raises:
        InputError: a source does not exist.
    """
    pins = {}
    for where, source in sources.items():
        try:
            pins[where] = source.identity()
        except InputError as error:
            raise at_line(error, document, f"{where}.source") from error
    return pins


def check_sources(sources: dict[str, Source], document: Located, home: Home) -> int:
    """Ask each source whether it exists and how large it is; check the disk.

    Returns:
        The bytes to download at most; a source of unknown size counts as 0.

    Raises:
        InputError: a source does not exist, or the disk has too little space.
    """
    sizes = {}
    with ThreadPoolExecutor() as pool:  # each probe waits for an index
        probes = {where: pool.submit(source.size_bytes) for where, source in sources.items()}
    for where, probe in probes.items():
        try:
            sizes[where] = probe.result() or 0
        except InputError as error:
            raise at_line(error, document, f"{where}.source") from error
    total = sum(sizes.values())
    # a quantised source grows up to eight times when its tensors are widened
    needed = total + WORKING_ROOM * 8 * sizes.get("model", 0)
    check_disk(home, needed)
    return total


def check_disk(home: Home, needed: int) -> None:
    """Raise InputError if the disk under ``home`` has fewer than ``needed`` bytes free."""
    existing = next(p for p in (home.root, *home.root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"not enough disk under {home}: {free / 1e9:.1f} GB free",
            expected=f"{needed / 1e9:.1f} GB for sources, base and converted checkpoints",
            remedy="free some space, or give another folder with --home",
        )
