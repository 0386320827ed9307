"""What healing and regularization share: reading their inputs, and writing the merged weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import LINEAGE, TextRef, TreeRef
from layerwright.tasks.finetune.precision import compute_dtype, emulation, loaded_dtype
from layerwright.tasks.finetune.rows import Rows, read_rows
from layerwright.tasks.finetune.snapshot import Snapshots, TrainingState
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.finetune.training import Training
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import load_tokenizer, stored_dtype
from layerwright.tasks.recipe.training import FinetuneOptions, TrainingStage
from layerwright.tasks.store.manifest import MANIFEST

if TYPE_CHECKING:  # finetune's cache key must not depend on the options of regularize
    from layerwright.tasks.recipe.regularize import RegularizeOptions

Loader = Callable[[Path, str, torch.dtype | None], HybridForCausalLM]


@dataclass(frozen=True)
class TrainingSetup:
    """The texts, options and processes of a training step."""

    step: str  # ``finetune`` or ``regularize``; names the step in log lines and in the lineage
    base: Path  # folder of the base, which has the tokenizer and the stored dtype
    source: Path  # folder of the checkpoint that is trained
    text: TextRef
    held_out: TextRef | None  # the validation text, if the options name one
    options: FinetuneOptions | RegularizeOptions
    ctx: Context
    inputs: str  # identity of the step's inputs, for `Snapshots`

    @cached_property
    def team(self) -> Team:
        """The processes that share the step's work."""
        return Team.of(self.ctx)

    @cached_property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.ctx.workdir, self.inputs, self.team)

    @property
    def stages(self) -> tuple[TrainingStage, ...]:
        return self.options.stages if isinstance(self.options, FinetuneOptions) else (self.options,)

    @cached_property
    def rows(self) -> Rows:
        return self._rows(self.text, self.options.text)

    @cached_property
    def held_out_rows(self) -> Rows | None:
        validation = self.options.validation
        if validation is None or self.held_out is None:
            return None
        return self._rows(self.held_out, validation.text, validation.rows)

    def _rows(self, text: TextRef, what: str, at_most: int | None = None) -> Rows:
        folder, tokenizer = self.ctx.store.open_tree(text.sha256), load_tokenizer(self.base)
        return read_rows(folder, tokenizer, self.options, what=what, at_most=at_most)

    def load(self, loader: Loader, folder: Path) -> HybridForCausalLM:
        """Load a model on the device and in the dtype of the training."""
        device = self.ctx.device
        return loader(folder, self.team.load_device(device), loaded_dtype(device, self.stages))

    def training(self, loader: Loader, teacher: HybridForCausalLM | None = None) -> Training:
        """The training; logs a warning if the device emulates the requested precision."""
        ctx, validation, held_out = self.ctx, self.options.validation, self.held_out_rows
        if warning := emulation(ctx.device, self.stages):
            ctx.log(f"{self.step}: {warning}")
        return Training(
            load_student=partial(self.load, loader, self.source),
            base=teacher,
            rows=self.rows,
            validation=(held_out, validation) if held_out and validation else None,
            snapshots=self.snapshots,
            checkpoint_every=self.options.checkpoint_every,
            seed=ctx.seed,
            compute=partial(compute_dtype, ctx.device, stored_dtype(self.base)),
            team=self.team,
            log=ctx.log,
            sink=ctx.sink,
            name=self.step,
        )

    def write_tree(self, state: TrainingState, **facts: Any) -> TreeRef | None:
        """Store ``source`` with the trained weights merged and the lineage extended by ``facts``;
        None in every process but the first.
        """
        if not self.team.first:
            return None
        lineage = {
            "text_sha256": self.text.sha256,
            "validation_sha256": self.held_out.sha256 if self.held_out else None,
            # without options that cannot change a weight, so that equal weights give equal trees
            "options": self.options.model_dump(mode="json", exclude={"text", "checkpoint_every"}),
            "seed": self.ctx.seed,
            "steps": state.step,
            "tokens": state.tokens,
            "trained_parameters": trained_parameters(state),
            **facts,
        }
        values: dict[str, Callable[[], Tensor]] = {}
        for stage in range(len(state.stages)):  # later stages override earlier ones
            weights = self.snapshots.weights(stage)
            values |= {name: partial(weights.__getitem__, name) for name in weights}
        folder = self.ctx.folder("merged")
        write_merged(self.source, folder, values, lineage, key=self.step)
        return self.ctx.store.put_tree(folder)


def trained_parameters(state: TrainingState) -> int:
    """Number of trained parameters of the stage that trained most."""
    return max(stage.trained_parameters for stage in state.stages)


def totals(state: TrainingState) -> dict[str, Any]:
    """The fields of a report that both trainings have."""
    return {
        "steps": state.step,
        "tokens": state.tokens,
        "trained_parameters": trained_parameters(state),
        "points": tuple(state.points),
        "seconds": state.seconds,
    }


def stored(tree: TreeRef) -> dict[str, Any]:
    return tree.model_dump(include={"uri", "sha256", "bytes"})


def write_merged(
    source: Path,
    target: Path,
    values: Mapping[str, Callable[[], Tensor]],
    lineage: dict[str, Any],
    *,
    key: str = "finetune",
) -> None:
    """Write ``source`` to the empty folder ``target`` with some weights replaced.

    A new value is cast to the dtype of the weight that it replaces. Names, dtypes, shards and all
    other files stay the same. A single shard is in memory at a time.

    Args:
        values: weight name -> function that returns its new value, in any float dtype.
        lineage: written to layerwright.json, under ``key``.
    """
    pending = dict(values)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        elif path.suffix == ".safetensors":
            _merge_shard(path, copy, pending)
        elif path != source / MANIFEST:
            shutil.copyfile(path, copy)
    assert not pending, f"the checkpoint has no weights {sorted(pending)}"
    file = source / LINEAGE
    record = (json.loads(file.read_text()) if file.exists() else {}) | {key: lineage}
    (target / LINEAGE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def _merge_shard(source: Path, target: Path, pending: dict[str, Callable[[], Tensor]]) -> None:
    tensors = {}
    with safe_open(source, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            weight = file.get_tensor(name)
            if name in pending:
                value = pending.pop(name)()
                assert value.shape == weight.shape, f"{name}: {value.shape} for {weight.shape}"
                weight = value.to(weight.dtype)
            tensors[name] = weight
        save_file(tensors, target, metadata=file.metadata())
