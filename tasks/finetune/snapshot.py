"""Save and restore the state of a training, so that a killed run resumes exactly.

``training.safetensors`` has the current stage's trained and best parameters, and the optimizer's
state. ``stage-N.safetensors``, written at the end of stage N, has the weights that it changed.
Their headers have steps, points and reports as JSON. Files are replaced atomically.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from layerwright.tasks.contracts.training import StageReport, TrainPoint, ValidationPoint
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.finetune.team import Team, full_tensor, sharded_like

HEADER = "training"


class TrainingState(BaseModel):
    """The progress of a training.

    Steps, tokens, seconds and rows are totals over all stages; ``best`` has the trained parameters
    of the current stage at its best validation, on the CPU.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    rows_read: int = 0
    points: list[TrainPoint] = []
    validation: list[ValidationPoint] = []
    stages: list[StageReport] = []  # reports of the finished stages
    best: dict[str, Any] = Field(default={}, exclude=True)

    def points_of(self, stage: int) -> list[ValidationPoint]:
        return [point for point in self.validation if point.stage == stage]


class Snapshots:
    """The saved files of a training, in a folder.

    Files with another identity of the training's ``inputs`` are ignored. All processes of the team
    make every call; only the first writes.
    """

    def __init__(self, folder: Path, inputs: str, team: Team | None = None) -> None:
        self.folder, self.inputs, self.team = folder, inputs, team or Team()
        self.current = folder / "training.safetensors"

    def stage_file(self, stage: int) -> Path:
        return self.folder / f"stage-{stage + 1}.safetensors"

    def finished(self) -> TrainingState:
        """The state after the last finished stage; a new state if no stage is finished."""
        state = TrainingState()
        while later := self._state(self.stage_file(len(state.stages))):
            state = later
        return state

    def weights(self, stage: int) -> dict[str, Tensor]:
        """The weights that a finished stage changed, by name, in fp32."""
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
        """Replace the snapshot of the current stage; ``parameters`` in the optimizer's order."""
        tensors = {f"parameter.{name}": full_tensor(p) for name, p in parameters.items()}
        for name, p in parameters.items():
            for key, value in optimizer.state[p].items():  # AdamW: step, exp_avg, exp_avg_sq
                tensors[f"optimizer.{key}.{name}"] = full_tensor(value)
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        self._write(self.current, state, tensors)

    def read(
        self, finished: TrainingState, parameters: dict[str, nn.Parameter], optimizer: Optimizer
    ) -> TrainingState:
        """Restore parameters and optimizer from the snapshot of the current stage. Returns the
        saved state; a copy of ``finished`` if there is no snapshot of the stage.
        """
        state = self._state(self.current)
        if state is None or len(state.stages) != len(finished.stages):
            return TrainingState(**finished.model_dump())
        moments: dict[str, dict] = {name: {} for name in parameters}
        with safe_open(self.current, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                kind, _, name = key.partition(".")
                value = file.get_tensor(key)
                if kind == "best":
                    state.best[name] = value
                elif kind == "parameter":
                    parameters[name].data.copy_(sharded_like(value, parameters[name]))
                else:
                    moment, _, name = name.partition(".")
                    if value.dim():  # AdamW's step is a scalar and is not sharded
                        value = sharded_like(value, parameters[name])
                    moments[name][moment] = value
        # load_state_dict moves the moments to their parameters' device, except AdamW's step
        saved = {i: moments[name] for i, name in enumerate(parameters) if moments[name]}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": saved})
        return state

    def _state(self, path: Path) -> TrainingState | None:
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[HEADER])
        return TrainingState(**facts) if facts.pop("inputs", None) == self.inputs else None

    def _write(self, path: Path, state: TrainingState, tensors: dict[str, Tensor]) -> None:
        if self.team.first:
            header = json.dumps({"inputs": self.inputs, **state.model_dump()})
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            write_atomically(path, save(contiguous, metadata={HEADER: header}))
        self.team.wait()
