"""What a step's plain function is given beside its inputs. It knows no orchestrator."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerwright.tasks.store.base import Store

MetricSink = Callable[[int, Mapping[str, float]], None]  # receives a training step and its metrics


def _silent(message: str) -> None:
    """Default log: a notebook or a test need not hear of it."""


def no_metrics(step: int, metrics: Mapping[str, float]) -> None:
    """Default sink: ignores the metrics."""


@dataclass(frozen=True)
class Context:
    """Where a step works.

    Attributes:
        store: where inputs are read from and results go.
        workdir: a folder of this step and these inputs alone. It survives a kill, so that the
            next attempt can go on from what it finds there, and is removed on success.
        seed: from the recipe.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        processes: how many share a training.
        memory_bytes: bound on the weights that the device holds; None for no bound.
        sink: gets a training's metrics as they come.
        log: one line about progress, for people.
    """

    store: Store
    workdir: Path
    seed: int = 0
    device: str = "cpu"
    processes: int = 1
    memory_bytes: int | None = None
    sink: MetricSink = no_metrics
    log: Callable[[str], None] = _silent

    def folder(self, name: str) -> Path:
        """A new empty folder in the workdir, whatever an earlier attempt left there."""
        path = self.workdir / name
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        return path
