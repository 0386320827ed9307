"""Save and restore the state of a training, so that a killed run resumes exactly.

``training.safetensors`` has the trained parameters of the current stage, the optimizer state and
the stage's best parameters. ``stage-N.safetensors``, written once at the end of stage N, has the
weights that the stage changed. Their headers have steps, points and reports as JSON. Files are
replaced atomically, and nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.training import StageReport, TrainPoint, ValidationPoint
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.finetune.team import Team, full_tensor, sharded_like

HEADER = "training"
LISTS: dict[str, type[Contract]] = {
    "points": TrainPoint,
    "validation": ValidationPoint,
    "stages": StageReport,
}


@dataclass
class TrainingState:
    """The progress of a training.

    Attributes:
        step, tokens, seconds, rows_read: totals over all stages.
        points: the metrics of each training step.
        validation: the results of each validation.
        stages: reports of the finished stages.
        best: trained parameters of the current stage at its best validation, on the CPU.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    rows_read: int = 0
    points: list[TrainPoint] = field(default_factory=list)
    validation: list[ValidationPoint] = field(default_factory=list)
    stages: list[StageReport] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """All fields except tensors, as JSON."""
        plain = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        lists = {name: [item.model_dump() for item in getattr(self, name)] for name in LISTS}
        return plain | {"rows_read": self.rows_read} | lists

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> TrainingState:
        lists = {
            name: [kind.model_validate(i) for i in facts[name]] for name, kind in LISTS.items()
        }
        return cls(**(facts | lists))


class Snapshots:
    """The saved files of a training, in a folder.

    Args:
        inputs: identity of the training's inputs; files with another identity are ignored.
        team: all its processes make every call; only the first process writes.
    """

    def __init__(self, folder: Path, inputs: str, team: Team | None = None) -> None:
        self.folder, self.inputs, self.team = folder, inputs, team or Team()
        self.current = folder / "training.safetensors"

    def stage_file(self, stage: int) -> Path:
        return self.folder / f"stage-{stage + 1}.safetensors"

    def finished(self) -> TrainingState:
        """Return the state after the last finished stage; a new state if no stage is finished."""
        state = TrainingState()
        while facts := self._facts(self.stage_file(len(state.stages))):
            state = TrainingState.from_facts(facts)
        return state

    def weights(self, stage: int) -> dict[str, Tensor]:
        """Return the weights that a finished stage changed, by name, in fp32."""
        with safe_open(self.stage_file(stage), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def write_stage(self, state: TrainingState, weights: dict[str, Tensor]) -> None:
        """Save the stage that has just finished, the last in ``state.stages``."""
        self._write(self.stage_file(len(state.stages) - 1), state, weights)
        if self.team.first:
            self.current.unlink(missing_ok=True)

    def write(
        self, state: TrainingState, parameters: dict[str, nn.Parameter], optimizer: Optimizer
    ) -> None:
        """Replace the snapshot of the current stage.

        Args:
            parameters: trained parameters by name, in the optimizer's order.
        """
        tensors = {f"parameter.{name}": full_tensor(p) for name, p in parameters.items()}
        for name, p in parameters.items():
            for key, value in optimizer.state[p].items():  # AdamW: step, exp_avg, exp_avg_sq
                tensors[f"optimizer.{key}.{name}"] = full_tensor(value)
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        self._write(self.current, state, tensors)

    def read(
        self,
        finished: TrainingState,
        parameters: dict[str, nn.Parameter],
        optimizer: Optimizer,
    ) -> TrainingState:
        """Restore parameters and optimizer from the snapshot of the current stage.

        Returns:
            The saved state; a copy of ``finished`` if there is no snapshot of the stage.
        """
        facts = self._facts(self.current)
        if facts is None or len(facts["stages"]) != len(finished.stages):
            return TrainingState.from_facts(finished.facts())
        state = TrainingState.from_facts(facts)
        moments: dict[str, dict] = {name: {} for name in parameters}
        with safe_open(self.current, framework="pt") as file:
            for name, p in parameters.items():
                p.data.copy_(sharded_like(file.get_tensor(f"parameter.{name}"), p))
            for key in file.keys():  # noqa: SIM118 - not a mapping
                kind, _, rest = key.partition(".")
                if kind == "best":
                    state.best[rest] = file.get_tensor(key)
                elif kind == "optimizer":
                    moment, _, name = rest.partition(".")
                    value = file.get_tensor(key)
                    if value.dim():  # AdamW's step is a scalar and is not sharded
                        value = sharded_like(value, parameters[name])
                    moments[name][moment] = value
        # load_state_dict moves the moments to their parameters' device, except AdamW's step
        saved = {i: moments[name] for i, name in enumerate(parameters) if moments[name]}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": saved})
        return state

    def _facts(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[HEADER])
        return facts if facts.pop("inputs", None) == self.inputs else None

    def _write(self, path: Path, state: TrainingState, tensors: dict[str, Tensor]) -> None:
        if self.team.first:
            header = json.dumps({"inputs": self.inputs, **state.facts()})
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            write_atomically(path, save(contiguous, metadata={HEADER: header}))
        self.team.wait()
