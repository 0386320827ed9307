"""The loss on logits: next-token cross entropy and KL to the base, in chunks of positions.

Legend: N predicted positions, D hidden size, V vocabulary, C positions of a chunk.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Distillation(NamedTuple):
    """Means per predicted token, in nats; only ``loss`` has a gradient; no KL without a teacher."""

    loss: Tensor
    next_token_nats: Tensor
    kl_nats: Tensor | None


class _ChunkedLoss(torch.autograd.Function):
    """Computes the loss and its gradient in the forward pass, chunk by chunk.

        d loss / d logits = ((a + b) softmax(student) - a onehot(target) - b softmax(teacher)) / N

    The output projection is frozen, so the gradient of the logits is multiplied with it at once and
    never stored. Three (C, V) matrices in fp32 are in memory at a time, instead of five (N, V).
    """

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor | None,
        head: Tensor,
        targets: Tensor,
        a: float,
        b: float,
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        positions = targets.numel()
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None  # [N, D]
        nll = torch.zeros((), dtype=torch.float64, device=student.device)
        kl = torch.zeros_like(nll)
        for start in range(0, positions, chunk):
            rows = slice(start, start + chunk)
            target = targets[rows, None]  # [C, 1]
            log_q = _log_softmax(student[rows] @ head.T)  # [C, V]
            nll -= log_q.gather(1, target).sum(dtype=torch.float64)
            p = None
            if teacher is not None:
                log_p = _log_softmax(teacher[rows] @ head.T)  # [C, V]
                p = log_p.exp()
                kl += torch.linalg.vecdot(p, log_p.sub_(log_q)).sum(dtype=torch.float64)
            if gradient is not None:
                d_logits = log_q.exp_().mul_(a + b)
                if p is not None:
                    d_logits.sub_(p.mul_(b))
                d_logits.scatter_add_(1, target, torch.full_like(target, -a, dtype=d_logits.dtype))
                gradient[rows] = d_logits.div_(positions).to(head.dtype) @ head
        nll, kl = nll / positions, kl / positions
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(nll, kl)
        return a * nll + b * kl, nll, kl

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor, _d_nll: Any, _d_kl: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * d_loss.to(gradient.dtype), *[None] * 6)


def distillation_loss(
    student: Tensor,
    teacher: Tensor | None,
    head: Tensor,
    targets: Tensor,
    *,
    next_token_weight: float,
    kl_weight: float,
    chunk_positions: int = 128,
) -> Distillation:
    """``next_token_weight * CE(student, target) + kl_weight * KL(teacher || student)``.

    Both terms are means over the predicted positions. The softmaxes are computed in fp32 or fp64.

    Args:
        student: (N, D) hidden states after the final norm, with a gradient.
        teacher: (N, D) hidden states of the base, without a gradient; None: no KL, its weight is 0.
        head: (V, D) frozen output projection of both models.
        targets: (N,) token ids.
        chunk_positions: affects only memory and speed.

    Reference: the KL of Hinton et al., arXiv 1503.02531, at temperature 1. Liger-Kernel's fused
    linear cross entropy (arXiv 2410.10989) also computes the gradient in the forward pass.
    """
    assert kl_weight == 0 if teacher is None else not teacher.requires_grad
    assert not head.requires_grad
    loss, nll, kl = _ChunkedLoss.apply(
        student, teacher, head, targets, next_token_weight, kl_weight, chunk_positions
    )
    return Distillation(loss, nll, None if teacher is None else kl)


def _log_softmax(logits: Tensor) -> Tensor:
    """(C, V); in place unless the logits have 16 bits."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits.sub_(torch.logsumexp(logits, dim=-1, keepdim=True))
