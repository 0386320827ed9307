"""The parts of a training step that healing and regularization share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import TextRef, TreeRef
from layerwright.tasks.finetune.merging import write_merged
from layerwright.tasks.finetune.precision import compute_dtype, emulation, loaded_dtype
from layerwright.tasks.finetune.rows import Rows, read_rows
from layerwright.tasks.finetune.snapshot import Snapshots, TrainingState
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.finetune.training import Training
from layerwright.tasks.finetune.validation import Validation
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import load_tokenizer, stored_dtype
from layerwright.tasks.recipe.training import FinetuneOptions, TrainingStage

if TYPE_CHECKING:  # finetune's cache key must not depend on the options of regularize
    from layerwright.tasks.recipe.regularize import RegularizeOptions


class Loader(Protocol):
    """`load_base` or `load_checkpoint`."""

    def __call__(
        self, folder: Path, device: str, dtype: torch.dtype | None
    ) -> HybridForCausalLM: ...


@dataclass(frozen=True)
class TrainingSetup:
    """The texts, options and processes of a training step.

    Attributes:
        step: ``finetune`` or ``regularize``; names the step in log lines and in the lineage.
        base: folder of the base, which has the tokenizer and the stored dtype.
        source: folder of the checkpoint that is trained.
        text: the training text.
        held_out: the validation text, if the options name one.
        team: the processes that train together.
    """

    step: str
    base: Path
    source: Path
    text: TextRef
    held_out: TextRef | None
    options: FinetuneOptions | RegularizeOptions
    ctx: Context
    team: Team

    @property
    def stages(self) -> tuple[TrainingStage, ...]:
        return self.options.stages if isinstance(self.options, FinetuneOptions) else (self.options,)

    def rows(self) -> tuple[Rows, Rows | None]:
        """Read the training rows, and the held-out rows if there is a validation.

        Raises:
            InputError: see `read_rows`.
        """
        tokenizer, open_tree = load_tokenizer(self.base), self.ctx.store.open_tree
        options, validation = self.options, self.options.validation
        rows = read_rows(open_tree(self.text.sha256), tokenizer, options, what=options.text)
        if validation is None or self.held_out is None:
            return rows, None
        held_out = read_rows(
            open_tree(self.held_out.sha256),
            tokenizer,
            options,
            what=validation.text,
            at_most=validation.rows,
        )
        return rows, held_out

    def load(self, loader: Loader, folder: Path) -> HybridForCausalLM:
        """Load a model on the device and in the dtype of the training."""
        device, dtype = self.ctx.device, loaded_dtype(self.ctx.device, self.stages)
        return loader(folder, device=self.team.load_device(device), dtype=dtype)

    def training(
        self,
        loader: Loader,
        rows: Rows,
        held_out: Rows | None,
        snapshots: Snapshots,
        teacher: HybridForCausalLM | None = None,
    ) -> Training:
        """Build the training; log a warning if the device emulates the requested precision."""
        ctx, validation = self.ctx, self.options.validation
        if warning := emulation(ctx.device, self.stages):
            ctx.log(f"{self.step}: {warning}")
        return Training(
            load_student=partial(self.load, loader, self.source),
            base=teacher,
            rows=rows,
            validation=Validation(held_out, validation) if held_out and validation else None,
            snapshots=snapshots,
            checkpoint_every=self.options.checkpoint_every,
            seed=ctx.seed,
            compute=partial(compute_dtype, ctx.device, stored_dtype(self.base)),
            team=self.team,
            log=ctx.log,
            sink=ctx.sink,
            name=self.step,
        )

    def write_tree(
        self, state: TrainingState, snapshots: Snapshots, **facts: Any
    ) -> TreeRef | None:
        """Store ``source`` with the trained weights merged and the lineage extended.

        Args:
            state: after the last stage.
            facts: further entries of the lineage.

        Returns:
            The tree; None in every process but the first.
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
            weights = snapshots.weights(stage)
            values |= {name: partial(weights.__getitem__, name) for name in weights}
        folder = self.ctx.folder("merged")
        write_merged(self.source, folder, values, lineage, key=self.step)
        return self.ctx.store.put_tree(folder)


def trained_parameters(state: TrainingState) -> int:
    """Number of trained parameters of the stage that trained most."""
    return max(stage.trained_parameters for stage in state.stages)
