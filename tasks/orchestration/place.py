"""The place of a run (home, store, compute), and its record of steps."""

from dataclasses import dataclass, field
from pathlib import Path

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.store.base import Store
from layerwright.tasks.store.open import open_store


class Place(Contract):
    """The place of a run. As JSON it is passed to child flows on other machines."""

    home: str
    store: str
    seed: int = 0
    compute: Compute = Compute()
    tracking_uri: str | None = None  # for live metrics, as run_id; no result depends on them
    run_id: str = ""

    @property
    def paths(self) -> Home:
        return Home(Path(self.home))

    def open_store(self) -> Store:
        return open_store(self.store, self.paths.trees)


class NotCached(Exception):  # noqa: N818 - it ends a dry run; it is no error
    """The cache has no result of a step; only dry runs raise it."""


@dataclass
class Run:
    """One pass through the DAG: its place, and time and cache hit of each step."""

    place: Place
    dry: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    hits: dict[str, bool] = field(default_factory=dict)

    @property
    def cache_hits(self) -> tuple[str, ...]:
        """Steps whose results all came from the cache."""
        return tuple(step for step, hit in self.hits.items() if hit)

    def saw(self, step: str, seconds: float, hit: bool) -> None:
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        self.hits[step] = self.hits.get(step, True) and hit
