"""A stage's loss on rows of text: which models run, what is read from them, what is added up.

Shapes: B rows of a batch, T tokens, D hidden size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwright.tasks.finetune.distillation import distillation_loss
from layerwright.tasks.finetune.objectives.base import (
    LayerObjective,
    LogitObjective,
    Objective,
    StreamObjective,
    Streams,
)
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.streams import Seen, seen
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.ablation import ablated


@dataclass(frozen=True)
class Means:
    """``loss``: the weighted sum; ``values``: each objective's mean, by name.

    ``nll`` and ``kl`` per token are there where logits were measured; ``kl`` needs a base.
    """

    loss: float
    values: dict[str, float]
    nll: float | None = None
    kl: float | None = None


class StageLoss:
    """The weighted sum of a stage's objectives, for student and base.

    Args:
        student: what is trained.
        base: the teacher; may be left out where no objective needs it.
        head: (V, D) frozen output projection, of both.
        converted: layers whose mixer is not the base's: those that layer objectives compare.
        compute: autocast's dtype, or None for the weights' own.
    """

    def __init__(
        self,
        student: HybridForCausalLM,
        base: HybridForCausalLM | None,
        objectives: Sequence[Objective],
        *,
        head: Tensor,
        converted: Sequence[int] = (),
        compute: torch.dtype | None = None,
        team: Team | None = None,
    ) -> None:
        self.student, self.base, self.head = student, base, head
        self.objectives, self.converted = tuple(objectives), tuple(converted)
        self.compute, self.team = compute, team or Team()
        self.removed = frozenset(
            layer
            for layer, spec in enumerate(student.config.layer_specs)
            if spec["mixer"]["kind"] == spec["feed_forward"]["kind"] == "none"
        )
        assert base is not None or not any(o.needs_base for o in objectives)

        self.logits: list[LogitObjective] = self._of_kind(LogitObjective)
        self.streams: list[StreamObjective] = self._of_kind(StreamObjective)
        self.layers: list[LayerObjective] = self._of_kind(LayerObjective)

    def _of_kind(self, kind: type) -> list:
        return [objective for objective in self.objectives if isinstance(objective, kind)]

    def accumulate(
        self, rows: Rows, at_once: int, windows_off: Sequence[bool] | None = None
    ) -> Means:
        """Add the gradient of the loss over ``rows``, batch by batch.

        Terms on logits are means over the tokens that count in all the rows, others over the real
        ones: how rows are batched, or spread over processes, does not change the loss.

        Args:
            rows: of the whole step; of several processes each takes its share.
            at_once: rows of a batch.
            windows_off: for each row whether its windows are switched off.
        """
        return self._over(rows, at_once, windows_off, gradient=True)

    @torch.no_grad()
    def measure(self, rows: Rows, at_once: int = 1) -> Means:
        """The same without a gradient, always with the NLL, and the KL where there is a base."""
        return self._over(rows, at_once, None, gradient=False)

    def _over(
        self, rows: Rows, at_once: int, windows_off: Sequence[bool] | None, *, gradient: bool
    ) -> Means:
        counted, real = int(rows.counted.sum()), int(rows.real.sum())
        mine = range(self.team.rank, len(rows), self.team.size)
        # every process makes the same number of passes, as they gather weights together: one that
        # has run out of rows reads one that counts nothing
        passes = math.ceil(math.ceil(len(rows) / self.team.size) / at_once)
        sums: dict[str, float] = defaultdict(float)
        for first in range(0, passes * at_once, at_once):
            chosen = list(mine[first : first + at_once])
            batch = next(rows[chosen or [0]].split(at_once)).to(self.student.device)
            share = 1.0 if chosen else 0.0
            off = None if windows_off is None else [windows_off[i] for i in chosen or [0]]
            with self._windows(off):  # around the backward pass as well, which may recompute
                found = self._batch(
                    batch,
                    logit_share=share * int(batch.counted.sum()) / counted,
                    share_B=share * batch.real.sum(1) / real,
                    gradient=gradient,
                )
            for name, value in found.items():
                sums[name] += float(value.detach())
        names = sorted(sums)
        sums = dict(zip(names, self.team.sum([sums[name] for name in names]), strict=True))
        values = {o.name: sums[o.name] for o in self.objectives}
        loss = sum(o.weight * values[o.name] for o in self.objectives)
        return Means(loss, values, sums.get("(nll)"), sums.get("(kl)"))

    def _batch(
        self, rows: Rows, *, logit_share: float, share_B: Tensor, gradient: bool
    ) -> dict[str, Tensor]:
        """What a batch adds to the step's means, after its backward pass."""
        with_logits = bool(self.logits) or not gradient
        base, base_hidden = self._base_pass(rows, gradient)
        found = {}
        if self.layers:
            found |= self._by_layer(rows, base, share_B, gradient)
        if not (with_logits or self.streams):
            return found
        with seen(self.student, stream=bool(self.streams)) as student, self._arithmetic():
            outputs = self.student.model(input_ids=rows.ids, use_cache=False)
        total = torch.zeros((), device=rows.ids.device)
        if with_logits:
            terms = self._on_logits(rows, outputs.last_hidden_state, base_hidden)
            total = total + logit_share * terms.loss
            by_term = {"next_token": terms.next_token_nats, "kl": terms.kl_nats}
            found |= {o.name: logit_share * by_term[o.term] for o in self.logits}
            if not gradient:
                found["(nll)"] = logit_share * terms.next_token_nats
                if terms.kl_nats is not None:
                    found["(kl)"] = logit_share * terms.kl_nats
        streams = Streams(
            student.stream, base.stream if self.base else None, rows.real, self.removed
        )
        for objective in self.streams:
            value = (objective.of_streams(streams) * share_B).sum()
            found[objective.name] = value
            total = total + objective.weight * value
        if gradient:
            self._backward(total)
        return found

    def _base_pass(self, rows: Rows, gradient: bool) -> tuple[Seen, Tensor | None]:
        """What the base does with the rows, where anything asks for it."""
        needed = any(o.needs_base for o in self.objectives) or not gradient
        if self.base is None or not needed:
            return Seen(), None
        watched = any(o.needs_base for o in (*self.layers, *self.streams))
        mixers = self.converted if self.layers else ()
        with (
            torch.no_grad(),
            seen(self.base, stream=watched, mixers=mixers) as found,
            self._arithmetic(),
        ):
            outputs = self.base.model(input_ids=rows.ids, use_cache=False)
        return found, outputs.last_hidden_state

    def _on_logits(self, rows: Rows, hidden_BTD: Tensor, base_BTD: Tensor | None):  # type: ignore[no-untyped-def]
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

    def _by_layer(
        self, rows: Rows, base: Seen, share_B: Tensor, gradient: bool
    ) -> dict[str, Tensor]:
        """Layer objectives: each layer by itself, so that one layer's graph lives at a time."""
        found = {o.name: torch.zeros((), device=rows.ids.device) for o in self.layers}
        placement = self.student.model.place(base.stream[0])
        for layer in self.converted:
            with self._arithmetic():
                output = self.student.model.layers[layer].mixed(base.stream[layer], placement)
            total = torch.zeros((), device=rows.ids.device)
            for objective in self.layers:
                value_B = objective.of_layer(output, base.mixed[layer], rows.real)
                value = (value_B * share_B).sum() / len(self.converted)
                found[objective.name] = found[objective.name] + value.detach()
                total = total + objective.weight * value
            if gradient:
                self._backward(total)
        return found

    def _backward(self, total: Tensor) -> None:
        # processes' gradients come as their mean, and the loss is a sum over processes
        (total * self.team.size).backward()

    def _arithmetic(self) -> AbstractContextManager:
        if self.compute is None:
            return nullcontext()
        return torch.autocast(self.student.device.type, dtype=self.compute)

    def _windows(self, off: Sequence[bool] | None) -> AbstractContextManager:
        if off is None or not any(off):
            return nullcontext()
        return ablated(self.student, "window", torch.tensor(list(off), device=self.student.device))
