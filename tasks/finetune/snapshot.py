"""The state of a training in files, so that a killed run goes on exactly where it was.

``training.safetensors`` holds what the stage at work trains, the optimiser's moments and the
stage's best state; ``stage-N.safetensors``, written once when stage N is done, the weights that it
changed. Their headers hold steps, points and reports as JSON. A file is replaced as a whole;
nothing is pickled.
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

from layerwright.tasks.contracts.training import StageReport, TrainPoint, ValidationPoint
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.finetune.team import Team, like, whole

HEADER = "training"
LISTS = {"points": TrainPoint, "validation": ValidationPoint, "stages": StageReport}


@dataclass
class TrainingState:
    """How far a training has come.

    Attributes:
        step, tokens, seconds, rows_read: over all stages.
        points, validation: what was measured on the way.
        stages: of the stages that are done.
        best: what the stage at work trains, as it was at its best validation; on the CPU.
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
        """Everything but tensors, as JSON."""
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
    """The files of one training in one folder.

    Args:
        run: identity of the training's inputs; files of another are not gone on from.
        team: all its processes call together; the first one writes.
    """

    def __init__(self, folder: Path, run: str, team: Team | None = None) -> None:
        self.folder, self.run, self.team = folder, run, team or Team()
        self.at_work = folder / "training.safetensors"

    def stage_file(self, stage: int) -> Path:
        return self.folder / f"stage-{stage + 1}.safetensors"

    def finished(self) -> TrainingState:
        """The state after the last stage that is done; a fresh one where there is none."""
        state = TrainingState()
        while facts := self._facts(self.stage_file(len(state.stages))):
            state = TrainingState.from_facts(facts)
        return state

    def weights(self, stage: int) -> dict[str, Tensor]:
        """What a finished stage changed: weight name -> fp32."""
        with safe_open(self.stage_file(stage), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def write_stage(self, state: TrainingState, weights: dict[str, Tensor]) -> None:
        """The stage that ``state.stages`` ends with is done."""
        self._write(self.stage_file(len(state.stages) - 1), state, weights)
        if self.team.first:
            self.at_work.unlink(missing_ok=True)

    def write(
        self, state: TrainingState, parameters: dict[str, nn.Parameter], optimizer: Optimizer
    ) -> None:
        """Replace the snapshot of the stage at work.

        Args:
            parameters: what is trained, by name, in the optimiser's order.
        """
        tensors = {f"parameter.{name}": whole(p) for name, p in parameters.items()}
        for name, p in parameters.items():
            for key, value in optimizer.state[p].items():  # AdamW: step, exp_avg, exp_avg_sq
                tensors[f"optimizer.{key}.{name}"] = whole(value)
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        self._write(self.at_work, state, tensors)

    def read(
        self,
        finished: TrainingState,
        parameters: dict[str, nn.Parameter],
        optimizer: Optimizer,
    ) -> TrainingState:
        """Put parameters and optimiser back; a copy of ``finished`` where there is no snapshot."""
        facts = self._facts(self.at_work)
        if facts is None or len(facts["stages"]) != len(finished.stages):
            return TrainingState.from_facts(finished.facts())
        state = TrainingState.from_facts(facts)
        moments: dict[str, dict] = {name: {} for name in parameters}
        with safe_open(self.at_work, framework="pt") as file:
            for name, p in parameters.items():
                p.data.copy_(like(file.get_tensor(f"parameter.{name}"), p))
            for key in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                kind, _, rest = key.partition(".")
                if kind == "best":
                    state.best[rest] = file.get_tensor(key)
                elif kind == "optimizer":
                    moment, _, name = rest.partition(".")
                    value = file.get_tensor(key)
                    moments[name][moment] = like(value, parameters[name]) if value.dim() else value
        # load_state_dict moves the moments to their parameters' device and keeps AdamW's step there
        held = {i: moments[name] for i, name in enumerate(parameters) if moments[name]}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
        return state

    def _facts(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[HEADER])
        return facts if facts.pop("run") == self.run else None

    def _write(self, path: Path, state: TrainingState, tensors: dict[str, Tensor]) -> None:
        if self.team.first:
            header = json.dumps({"run": self.run, **state.facts()})
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            write_atomically(path, save(contiguous, metadata={HEADER: header}))
        self.team.wait()
