"""StageLoss: run student and base on rows, and compute the weighted sum of a stage's objectives.

Shapes: B rows of a batch, T tokens, D hidden size.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerwright.tasks.finetune.distillation import Distillation, distillation_loss
from layerwright.tasks.finetune.objectives.base import (
    LayerObjective,
    LogitObjective,
    Objective,
    StreamObjective,
    Streams,
)
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.ablation import ablated


@dataclass(frozen=True)
class Means:
    """Means over the rows of a step or a validation: the weighted sum, and each objective."""

    loss: float
    values: dict[str, float]
    nll: float | None = None  # per token; only from `StageLoss.measure`
    kl: float | None = None  # likewise, with a base


@dataclass
class Recording:
    """The recorded tensors of a forward pass, (B, T, D) each."""

    stream: list[Tensor] = field(default_factory=list)  # inputs of the layers, output of the last
    mixed: dict[int, Tensor] = field(default_factory=dict)  # layer -> output of its mixer


@contextmanager
def recording(
    model: HybridForCausalLM, *, stream: bool, mixers: Collection[int] = ()
) -> Iterator[Recording]:
    """Record the stream and the outputs of ``mixers`` in the ``with`` block, a single pass."""
    recorded = Recording()

    def after_layer(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        recorded.stream += [output] if recorded.stream else [inputs[0], output]

    def after_mixer(index: int, _mixer: nn.Module, _inputs: Any, output: Tensor) -> None:
        recorded.mixed[index] = output

    layers = model.model.layers
    hooks = [layer.register_forward_hook(after_layer) for layer in layers if stream]
    for index in mixers:
        hook = partial(after_mixer, index)
        hooks.append(layers[index].self_attn.register_forward_hook(hook))
    try:
        yield recorded
    finally:
        for handle in hooks:
            handle.remove()


@dataclass(eq=False)
class StageLoss:
    """The weighted sum of a stage's objectives."""

    student: HybridForCausalLM
    base: HybridForCausalLM | None  # the teacher; None only if no objective needs it
    objectives: Sequence[Objective]
    head: Tensor  # (V, D) frozen output projection of both models
    converted: Sequence[int] = ()  # layers with another mixer than the base: layer objectives' own
    compute: torch.dtype | None = None  # autocast dtype; None: no autocast
    team: Team = field(default_factory=Team)  # the processes that train together

    def __post_init__(self) -> None:
        self.removed = frozenset(
            layer
            for layer, spec in enumerate(self.student.config.layer_specs or ())
            if spec["mixer"]["kind"] == spec["feed_forward"]["kind"] == "none"
        )
        assert self.base is not None or not any(o.needs_base for o in self.objectives)
        self.logits = [o for o in self.objectives if isinstance(o, LogitObjective)]
        self.streams = [o for o in self.objectives if isinstance(o, StreamObjective)]
        self.layers = [o for o in self.objectives if isinstance(o, LayerObjective)]

    def accumulate(
        self, rows: Rows, at_once: int, windows_off: Sequence[bool] | None = None
    ) -> Means:
        """Add the gradient of the loss over the rows of a step, ``at_once`` rows at a time.

        Logit objectives are means over the counted tokens of all rows, other objectives over all
        real tokens. So the loss depends neither on the batches nor on the number of processes, each
        of which takes its share of ``rows``. ``windows_off``: for each row.
        """
        return self._run(rows, at_once, windows_off, gradient=True)

    @torch.no_grad()
    def measure(self, rows: Rows) -> Means:
        """Compute the same means without a gradient, plus the NLL and, with a base, the KL."""
        return self._run(rows, 1, None, gradient=False)

    def _run(
        self, rows: Rows, at_once: int, windows_off: Sequence[bool] | None, *, gradient: bool
    ) -> Means:
        counted, real = int(rows.counted.sum()), int(rows.real.sum())
        own = range(self.team.rank, len(rows), self.team.size)
        # every process makes the same number of passes, because they gather weights together; a
        # process without rows left runs row 0 with weight 0
        passes = math.ceil(math.ceil(len(rows) / self.team.size) / at_once)
        sums: dict[str, float] = defaultdict(float)
        for first in range(0, passes * at_once, at_once):
            chosen = list(own[first : first + at_once])
            batch = rows[chosen or [0]].trimmed().to(self.student.device)
            share = 1.0 if chosen else 0.0
            off = [windows_off[i] for i in chosen or [0]] if windows_off else []
            with self._windows(off):  # includes the backward pass, which may recompute the forward
                terms = self._batch(
                    batch,
                    logit_share=share * int(batch.counted.sum()) / counted,
                    share_B=share * batch.real.sum(1) / real,
                    gradient=gradient,
                )
            for name, value in terms.items():
                sums[name] += float(value.detach())
        names = sorted(sums)
        sums = dict(zip(names, self.team.sum([sums[name] for name in names]), strict=True))
        values = {o.name: sums[o.name] for o in self.objectives}
        loss = sum(o.weight * values[o.name] for o in self.objectives)
        return Means(loss, values, sums.get("(nll)"), sums.get("(kl)"))

    def _batch(
        self, rows: Rows, *, logit_share: float, share_B: Tensor, gradient: bool
    ) -> dict[str, Tensor]:
        """Run a batch, with the backward pass; return its terms of the step's means."""
        with_logits = bool(self.logits) or not gradient
        base, base_hidden = self._base_pass(rows, gradient)
        values = self._layer_values(rows, base, share_B, gradient)
        if not (with_logits or self.streams):
            return values
        with recording(self.student, stream=bool(self.streams)) as student, self._autocast():
            outputs = self.student.model(input_ids=rows.ids, use_cache=False)
        total = torch.zeros((), device=rows.ids.device)
        if with_logits:
            logits = self._logit_loss(rows, outputs.last_hidden_state, base_hidden)
            total = total + logit_share * logits.loss
            shares = {"next_token": logit_share * logits.next_token_nats}
            if logits.kl_nats is not None:
                shares["kl"] = logit_share * logits.kl_nats
            values |= {o.name: shares[o.term] for o in self.logits}
            if not gradient:
                names = {"next_token": "(nll)", "kl": "(kl)"}
                values |= {names[term]: value for term, value in shares.items()}
        of_base = base.stream if self.base else None
        streams = Streams(student.stream, of_base, rows.real, self.removed)
        for objective in self.streams:
            value = (objective.of_streams(streams) * share_B).sum()
            values[objective.name] = value
            total = total + objective.weight * value
        if gradient:
            self._backward(total)
        return values

    def _base_pass(self, rows: Rows, gradient: bool) -> tuple[Recording, Tensor | None]:
        """Run the base, if an objective or the measurement needs it."""
        needed = any(o.needs_base for o in self.objectives) or not gradient
        if self.base is None or not needed:
            return Recording(), None
        with_stream = any(o.needs_base for o in (*self.layers, *self.streams))
        mixers = self.converted if self.layers else ()
        record = recording(self.base, stream=with_stream, mixers=mixers)
        with torch.no_grad(), record as recorded, self._autocast():
            outputs = self.base.model(input_ids=rows.ids, use_cache=False)
        return recorded, outputs.last_hidden_state

    def _logit_loss(self, rows: Rows, hidden_BTD: Tensor, base_BTD: Tensor | None) -> Distillation:
        counted = rows.counted[:, 1:]
        weights = {"next_token": 0.0, "kl": 0.0} | {o.term: o.weight for o in self.logits}
        if base_BTD is not None:
            base_BTD = base_BTD[:, :-1][counted].to(self.head.dtype)
        return distillation_loss(
            hidden_BTD[:, :-1][counted].to(self.head.dtype),
            base_BTD,
            self.head,
            rows.ids[:, 1:][counted],
            next_token_weight=weights["next_token"],
            kl_weight=weights["kl"],
        )

    def _layer_values(
        self, rows: Rows, base: Recording, share_B: Tensor, gradient: bool
    ) -> dict[str, Tensor]:
        """Layer objectives, with their backward pass: memory holds a single layer's graph."""
        values = {o.name: torch.zeros((), device=rows.ids.device) for o in self.layers}
        if not self.layers:
            return values
        placement = self.student.model.place(base.stream[0])
        for layer in self.converted:
            with self._autocast():
                output = self.student.model.layers[layer].mixed(base.stream[layer], placement)
            total = torch.zeros((), device=rows.ids.device)
            for objective in self.layers:
                value_B = objective.of_layer(output, base.mixed[layer], rows.real)
                value = (value_B * share_B).sum() / len(self.converted)
                values[objective.name] = values[objective.name] + value.detach()
                total = total + objective.weight * value
            if gradient:
                self._backward(total)
        return values

    def _backward(self, total: Tensor) -> None:
        # FSDP averages the gradients over processes, but the loss is a sum over processes
        (total * self.team.size).backward()

    def _autocast(self) -> AbstractContextManager:
        enabled = self.compute is not None
        return torch.autocast(self.student.device.type, dtype=self.compute, enabled=enabled)

    def _windows(self, off: list[bool]) -> AbstractContextManager:
        if not any(off):
            return nullcontext()
        return ablated(self.student, "window", torch.tensor(off, device=self.student.device))
