"""The context of a step: store, working folder, device; independent of the orchestrator."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerwright.tasks.store.base import Store

MetricSink = Callable[[int, Mapping[str, float]], None]  # receives a training step and its metrics


def no_metrics(step: int, metrics: Mapping[str, float]) -> None:
    """The default sink; it drops all metrics."""


@dataclass(frozen=True)
class Context:
    """The environment of a step, which it gets in addition to its inputs."""

    store: Store  # the store of inputs and results
    # a folder for this step with these inputs. It survives a kill, so that the next attempt can
    # resume from it, and is removed on success.
    workdir: Path
    seed: int = 0  # the recipe's seed
    device: str = "cpu"  # ``cpu``, ``cuda``, ``cuda:1``..
    processes: int = 1  # number of processes that share a training
    memory_bytes: int | None = None  # bound on the weights on the device; None for no bound
    sink: MetricSink = no_metrics  # takes a training's live metrics
    log: Callable[[str], None] = lambda message: None  # takes one line about progress, for people

    def folder(self, name: str) -> Path:
        """A new empty folder in the workdir; an existing one is deleted."""
        path = self.workdir / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path
