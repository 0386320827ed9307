"""Store step results in the run's store, through Prefect's result persistence."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from prefect.filesystems import WritableFileSystem

from layerwright.tasks.store.base import Store
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.store.open import open_store


class StoreResults(WritableFileSystem):
    """Prefect result storage in a store, so that results survive the loss of the Prefect server."""

    _block_type_name = "Layerwright store"
    _block_type_slug = "layerwright-store"

    uri: str
    cache: str

    def _store(self) -> Store:
        return open_store(self.uri, Path(self.cache))

    # Prefect calls the async methods, or the sync ones with `_sync=True`

    def read_path(self, path: str, **form: Any) -> bytes:  # type: ignore[override]
        data = self._store().read(f"results/{path}")
        if data is None:
            raise ValueError(f"{self.uri} has no result {path}")
        return data

    def write_path(  # type: ignore[override]
        self, path: str, content: bytes, **form: Any
    ) -> None:
        self._store().write(f"results/{path}", content)

    async def aread_path(self, path: str) -> bytes:
        return self.read_path(path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        self.write_path(path, content)


@cache
def result_storage(uri: str, cache_folder: Path) -> Any:
    """Prefect's storage for the results of a run: ``results/`` in the run's store."""
    store = open_store(uri, cache_folder)
    if isinstance(store, LocalStore):
        return store.root / "results"
    block = StoreResults(uri=store.uri, cache=str(cache_folder))
    block.save("layerwright-results", overwrite=True)  # Prefect accepts only saved blocks
    return block
