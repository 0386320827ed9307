"""The home folder: everything that runs keep on this machine, and the path of each part."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

SQLITE = "sqlite:///"


class Home:
    """The parts of one home folder. No method makes a folder, except ``scratch``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "store"  # of runs whose recipe names none
        self.trees = root / "cache" / "trees"  # local copies of the trees of remote stores
        self.tracking_uri = f"{SQLITE}{root}/mlflow.db"  # of runs whose recipe names no server
        self.artifacts = root / "mlflow-artifacts"
        self.runs = root / "runs"  # one folder for each run
        self.locks = root / "locks"  # of steps, for runs that need the same step at once
        self.promotions = root / "promotions"  # locks of models, held while a champion moves
        self.prefect = root / "prefect"  # Prefect's own files, including its database
        self.servers = self.prefect / "servers"  # the process ids of embedded Prefect servers

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """The home at a path, made absolute."""
        return cls(Path(path).resolve())

    @classmethod
    def beside(cls, tracking_uri: str) -> Self:
        """The home whose registry is the SQLite file of ``tracking_uri``."""
        return cls(Path(tracking_uri.removeprefix(SQLITE)).resolve().parent)

    def __str__(self) -> str:
        return str(self.root)

    def work(self, key: str) -> Path:
        """The intermediate files of an unfinished step, by its cache key."""
        return self.root / "work" / key

    def rollout(self, name: str) -> Path:
        """The request records of one roll-out."""
        return self.root / "rollouts" / name

    @contextlib.contextmanager
    def scratch(self, prefix: str) -> Iterator[Path]:
        """A temporary folder on the home's disk, which has room for checkpoints."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.root) as folder:
            yield Path(folder)
