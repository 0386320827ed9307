"""The home folder: everything that runs keep on this machine, and the path of each part."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Home:
    """The parts of one home folder. No method makes a folder, except ``scratch``."""

    root: Path

    @classmethod
    def at(cls, path: str | Path) -> Home:
        """The home at a path, made absolute."""
        return cls(Path(path).resolve())

    @classmethod
    def beside(cls, tracking_uri: str) -> Home:
        """The home whose registry is the SQLite file of ``tracking_uri``."""
        return cls(Path(tracking_uri.removeprefix(SQLITE)).resolve().parent)

    def __str__(self) -> str:
        return str(self.root)

    @property
    def store(self) -> Path:
        """The store of runs whose recipe names none."""
        return self.root / "store"

    @property
    def trees(self) -> Path:
        """Local copies of the trees of remote stores."""
        return self.root / "cache" / "trees"

    @property
    def tracking_uri(self) -> str:
        """The MLflow database of runs whose recipe names no server."""
        return f"{SQLITE}{self.root}/mlflow.db"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts, beside its database."""
        return self.root / "mlflow-artifacts"

    @property
    def runs(self) -> Path:
        """One folder for each run."""
        return self.root / "runs"

    def work(self, key: str) -> Path:
        """The intermediate files of an unfinished step, by its cache key."""
        return self.root / "work" / key

    @property
    def locks(self) -> Path:
        """Locks of steps, for runs that need the same step at once."""
        return self.root / "locks"

    @property
    def promotions(self) -> Path:
        """Locks of registered models, held while a champion moves."""
        return self.root / "promotions"

    def rollout(self, name: str) -> Path:
        """The request records of one roll-out."""
        return self.root / "rollouts" / name

    @property
    def prefect(self) -> Path:
        """Prefect's own files, including its database."""
        return self.root / "prefect"

    @property
    def servers(self) -> Path:
        """The process ids of embedded Prefect servers."""
        return self.prefect / "servers"

    @contextlib.contextmanager
    def scratch(self, prefix: str) -> Iterator[Path]:
        """A temporary folder on the home's disk, which has room for checkpoints."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.root) as folder:
            yield Path(folder)
