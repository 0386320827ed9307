"""Stage 1 of TRSP: a learned scale per layer, under an L1 penalty, ranks layers for removal.

Shapes: T tokens a row, D hidden size, L layers.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import AdamW

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.layer_turn import at_work
from layerwright.tasks.passes.likelihood import target_nll
from layerwright.tasks.passes.states import Keep, States
from layerwright.tasks.profile.base import Findings, ModelProfiler, Subject
from layerwright.tasks.progress import Bar

_POSITIONS_AT_ONCE = 256  # the logits of a whole row and their gradients would dominate memory


class TrspScale(ModelProfiler):
    """Layer order by a learned scale under an L1 penalty (arXiv 2505.18232, stage 1).

        x_{l+1} = x_l + s_l f_l(x_l),   min over s of  next-token NLL + penalty sum_l |s_l|

    s_l starts at 1 and scales the delta that layer l adds to the residual stream. The search takes
    ``steps_per_layer`` steps of AdamW on a row each, masks (removes) the layer with the smallest
    |s_l|, and repeats until ``layers`` layers are masked. Scores: ``trsp_order``, 0 for the layer
    that is masked first, and so on, with the unmasked layers last, by |s_l|; ``trsp_scale``, s_l
    when the layer was masked, or at the end.

    This differs from the paper in two points. The paper multiplies "the layer's output" by s_l; we
    scale the delta, so that masking (s_l = 0) is exactly a removal. The paper trains all weights
    with the scales; we train only the scales, so profiling leaves the model unchanged. There is no
    weight decay: the penalty is the only pull towards 0. AdamW moves a scale by at most about
    learning_rate a step, whatever its gradient, so the scales differ by how steadily the rows pull
    them up against the penalty.

    The backward pass recomputes a layer's activations, so memory holds, beside the weights, only
    the hidden states of a single row, T x D x L. The state is saved after every masking, so a
    second attempt in the same folder resumes after the last masked layer.
    """

    name = "trsp_scale"
    layers: int | None = Field(default=None, ge=1)  # to mask; None: a quarter, as in the paper
    steps_per_layer: int = Field(default=8, ge=1)
    penalty: float = Field(default=5e-3, ge=0, allow_inf_nan=False)  # lambda_1, the paper's
    # of the scales; the paper's 2e-5 is for weights
    learning_rate: float = Field(default=1e-2, gt=0, allow_inf_nan=False)

    def run(self, subject: Subject) -> Findings:
        total = len(subject.model.model.layers)
        count = self._count(total)
        if count > total:
            raise InputError(
                f"trsp_scale cannot mask {count} layers: the model has {total} layers",
                where="profile.profilers",
                expected=f"layers of at most {total}",
            )
        if subject.rows.shape[1] < 2:
            raise InputError(
                "trsp_scale: rows of one token have no next token to predict",
                where="profile.row_tokens",
                expected="at least 2 tokens a row",
            )
        key = identity([self.model_dump(), subject.seed])[:16]
        search = _Search(self, subject, subject.workdir / f"trsp_scale-{key}.json")
        return search.run(count, subject.bar)

    def estimate_tokens(self, layers: int, strategies: int) -> int:
        # a forward pass, its recomputation, and a backward pass that costs as much as both
        return self._count(layers) * self.steps_per_layer * 1024 * 4

    def _count(self, total: int) -> int:
        return math.ceil(total / 4) if self.layers is None else self.layers


@dataclass
class _State:
    """The saved state: the layers in the order of masking, the scales, and AdamW's moments."""

    masked: list[int]
    scales: list[float]
    first_moments: list[float]
    second_moments: list[float]

    def by_scale(self) -> list[int]:
        """The unmasked layers, the smallest scale first; ties go to the lower layer."""
        left = (layer for layer in range(len(self.scales)) if layer not in self.masked)
        return sorted(left, key=lambda layer: (abs(self.scales[layer]), layer))


class _Search:
    """Trains the scales and masks a layer, again and again."""

    def __init__(self, options: TrspScale, subject: Subject, file: Path) -> None:
        self.options, self.file, self.log = options, file, subject.log
        self.model, self.rows, self.keep = subject.model, subject.rows, subject.keep
        zeros = [0.0] * len(self.model.model.layers)
        self.state = _State([], [1.0] * len(zeros), zeros, zeros)
        if file.is_file():
            self.state = _State(**json.loads(file.read_text()))
        generator = torch.Generator().manual_seed(subject.seed)
        self.order = torch.randperm(len(self.rows), generator=generator).tolist()

    def run(self, count: int, bar: Bar) -> Findings:
        """Mask ``count`` layers; a resumed search skips those that are masked already."""
        steps = self.options.steps_per_layer
        done = len(self.state.masked)
        job = bar.add_task("trsp_scale", total=count * steps, completed=done * steps)
        for masking in range(done, count):
            scales, optimizer = self._optimizer(masking * steps)
            for step in range(masking * steps, (masking + 1) * steps):
                row = self.rows[self.order[step % len(self.rows)]]
                nll = self._step(scales, optimizer, row[None].to(self.model.device))
                bar.update(job, advance=1, note=f"nll {nll:.3f}, {masking} masked")
            self._mask(scales, optimizer)
            write_atomically(self.file, json.dumps(asdict(self.state)).encode())
            layer = self.state.masked[-1]
            self.log(
                f"trsp_scale: masked layer {layer} at scale {self.state.scales[layer]:.4f}, "
                f"{masking + 1} of {count}"
            )
        order = [*self.state.masked, *self.state.by_scale()]
        return Findings(
            [
                {"trsp_order": float(order.index(layer)), "trsp_scale": scale}
                for layer, scale in enumerate(self.state.scales)
            ]
        )

    def _optimizer(self, steps_done: int) -> tuple[Tensor, AdamW]:
        """Return the scales (L,) in fp32, and AdamW with the saved moments."""
        device = self.model.device
        scales = torch.tensor(self.state.scales, device=device, requires_grad=True)
        optimizer = AdamW([scales], lr=self.options.learning_rate, weight_decay=0.0)
        optimizer.state[scales] = {
            "step": torch.tensor(float(steps_done)),
            "exp_avg": torch.tensor(self.state.first_moments, device=device),
            "exp_avg_sq": torch.tensor(self.state.second_moments, device=device),
        }
        return scales, optimizer

    def _step(self, scales: Tensor, optimizer: AdamW, ids: Tensor) -> float:
        """Take a training step on a row (1, T); return its NLL before the step."""
        kept = sorted(self.state.by_scale())
        # gradients of the scales only, never of the weights
        nll, gradients = scaled_nll(
            self.model, ids, {layer: scales[layer].detach() for layer in kept}, self.keep
        )
        penalty = self.options.penalty * scales[kept].abs().sum()
        (scales.grad,) = torch.autograd.grad(penalty, [scales])
        for layer, gradient in gradients.items():
            scales.grad[layer] += gradient
        loss = nll + penalty.detach()
        if not (loss.isfinite() and scales.grad.isfinite().all()):
            raise StepError(
                f"trsp_scale: the loss ({loss.item()}) or its gradient is not finite; "
                "lower learning_rate"
            )
        optimizer.step()
        return nll.item()

    def _mask(self, scales: Tensor, optimizer: AdamW) -> None:
        """Update the state: mask the layer with the smallest scale."""
        # a masked layer keeps its scale, though AdamW's momentum still moves it
        before, masked = self.state.scales, self.state.masked
        values = [before[i] if i in masked else v for i, v in enumerate(scales.tolist())]
        moments = [optimizer.state[scales][name].tolist() for name in ("exp_avg", "exp_avg_sq")]
        state = _State(masked, values, *moments)
        self.state = replace(state, masked=[*masked, state.by_scale()[0]])


@torch.no_grad()
def scaled_nll(
    model: HybridForCausalLM, ids: Tensor, scales: dict[int, Tensor], keep: Keep = tuple
) -> tuple[Tensor, dict[int, Tensor]]:
    """Compute the mean next-token NLL with each layer's delta scaled, and its gradients.

        x_{l+1} = x_l + s_l f_l(x_l),   d NLL / d s_l = <d NLL / d x_{l+1}, f_l(x_l)>

    Only a single layer is on the device at a time: all layers in the forward pass, then all in
    reverse for the gradients. So each layer's weights are loaded twice, whatever the model's size.

    Args:
        ids: (1, T) token ids.
        scales: layer -> its scale, a scalar; layers that are not in it are skipped.
        keep: stores the inputs of the layers for the backward pass.
    """
    hidden, placement = model.model.prepare(ids)

    def scaled(layer: int, x: Tensor, scale: Tensor) -> Tensor:
        added = model.model.layers[layer](x, placement) - x
        return x + (scale * added.float()).to(x.dtype)

    inputs: dict[int, States] = {}
    for layer, scale in scales.items():
        inputs[layer] = keep([hidden])
        with at_work(model.model.layers[layer]):
            hidden = scaled(layer, hidden, scale)
    nll, upstream = _nll_and_gradient(model, hidden, ids[:, 1:])
    gradients = {}
    for layer in reversed(scales):
        x = inputs.pop(layer)[0].requires_grad_()
        scale = scales[layer].detach().requires_grad_()
        with at_work(model.model.layers[layer]), torch.enable_grad():
            out = scaled(layer, x, scale)
            upstream, gradients[layer] = torch.autograd.grad(out, [x, scale], upstream)
    return nll, gradients


def _nll_and_gradient(
    model: HybridForCausalLM, hidden: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean NLL of the targets (1, T - 1), and its gradient in ``hidden`` (1, T, D)."""
    gradient, parts = torch.zeros_like(hidden), []
    for start in range(0, targets.shape[1], _POSITIONS_AT_ONCE):
        chunk = targets[:, start : start + _POSITIONS_AT_ONCE]
        part = slice(start, start + chunk.shape[1])
        with torch.enable_grad():
            states = hidden[:, part].detach().requires_grad_()
            nll = target_nll(model.head(states), chunk).sum() / targets.numel()
        (gradient[:, part],) = torch.autograd.grad(nll, [states])
        parts.append(nll.detach())
    return torch.stack(parts).sum(), gradient
