"""The state of a training run in one file, so that a killed run goes on exactly where it was.

A safetensors file holds the adapters and the optimiser's moments, its header the step, the points
and the seconds as JSON. It is replaced as a whole; nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer

from tasks.contracts import TrainPoint
from tasks.store import write_atomically


@dataclass
class TrainingState:
    """How far a run has come: ``step`` optimiser steps, seen ``tokens``, spent ``seconds``."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    points: list[TrainPoint] = field(default_factory=list)


def write_snapshot(
    path: Path,
    run: str,
    state: TrainingState,
    parameters: dict[str, nn.Parameter],
    optimizer: Optimizer,
) -> None:
    """Replace the snapshot at ``path``.

    Args:
        run: identity of the run's inputs; only the same run may go on from this file.
        parameters: what is trained, by name, in the optimiser's order.
    """
    tensors = {f"parameter.{name}": p.detach() for name, p in parameters.items()}
    for name, p in parameters.items():
        for key, value in optimizer.state[p].items():  # AdamW: step, exp_avg, exp_avg_sq
            tensors[f"optimizer.{key}.{name}"] = value
    facts = {
        "run": run,
        "step": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "points": [point.model_dump() for point in state.points],
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata={"training": json.dumps(facts)}))


def read_snapshot(
    path: Path, run: str, parameters: dict[str, nn.Parameter], optimizer: Optimizer
) -> TrainingState:
    """Put parameters and optimiser back; a fresh state where there is no snapshot of this run."""
    if not path.exists():
        return TrainingState()
    moments: dict[str, dict] = {name: {} for name in parameters}
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["training"])
        if facts.pop("run") != run:
            return TrainingState()
        for name, p in parameters.items():
            p.data.copy_(file.get_tensor(f"parameter.{name}"))
        for key in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            if key.startswith("optimizer."):
                _, moment, name = key.split(".", 2)
                moments[name][moment] = file.get_tensor(key)
    # load_state_dict moves the moments to their parameters' device and keeps AdamW's step there
    state = {index: moments[name] for index, name in enumerate(parameters)}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    points = [TrainPoint.model_validate(point) for point in facts.pop("points")]
    return TrainingState(points=points, **facts)
