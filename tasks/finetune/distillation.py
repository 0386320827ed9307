"""The loss on logits: next-token cross entropy and KL to the base, without whole logits.

Legend: N predicted positions, D hidden size, V vocabulary, C positions of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_POSITIONS = 128


@dataclass(frozen=True)
class Distillation:
    """Means per predicted token, in nats. Only ``loss`` carries a gradient.

    ``kl_nats`` is None where no teacher was given.
    """

    loss: Tensor
    next_token_nats: Tensor
    kl_nats: Tensor | None


class _ChunkedLoss(torch.autograd.Function):
    """Loss and its gradient chunk by chunk, both in the forward pass.

    The output projection is frozen, so the gradient of the logits never has to be kept:

        d loss / d logits = ((a + b) softmax(student) - a onehot(target) - b softmax(teacher)) / N

    is multiplied with the projection at once. No chunk is computed twice, and at any time three
    (C, V) matrices in fp32 are alive instead of five (N, V) ones; two without a teacher.
    """

    @staticmethod
    def forward(ctx, student, teacher, head, targets, a: float, b: float, chunk: int):  # type: ignore[no-untyped-def]
        positions = targets.numel()
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None  # [N, D]
        nll = torch.zeros((), dtype=torch.float64, device=student.device)
        kl = torch.zeros_like(nll)
        for start in range(0, positions, chunk):
            rows = slice(start, start + chunk)
            wanted = targets[rows, None]  # [C, 1]
            log_q = _log_softmax(student[rows] @ head.T)  # [C, V]
            nll -= log_q.gather(1, wanted).sum(dtype=torch.float64)
            p = None
            if teacher is not None:
                log_p = _log_softmax(teacher[rows] @ head.T)  # [C, V]
                p = log_p.exp()
                kl += torch.linalg.vecdot(p, log_p.sub_(log_q)).sum(dtype=torch.float64)
            if gradient is not None:
                d_logits = log_q.exp_().mul_(a + b)
                if p is not None:
                    d_logits.sub_(p.mul_(b))
                d_logits.scatter_add_(1, wanted, torch.full_like(wanted, -a, dtype=d_logits.dtype))
                gradient[rows] = d_logits.div_(positions).to(head.dtype) @ head
        nll, kl = nll / positions, kl / positions
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(nll, kl)
        return a * nll + b * kl, nll, kl

    @staticmethod
    def backward(ctx, d_loss, _d_nll, _d_kl):  # type: ignore[no-untyped-def]
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
    chunk_positions: int = CHUNK_POSITIONS,
) -> Distillation:
    """``next_token_weight * CE(student, target) + kl_weight * KL(teacher || student)``.

    Both terms are means over the predicted positions; the softmaxes are taken in fp32 at least.

    Args:
        student: (N, D) hidden states after the final norm, with a gradient.
        teacher: (N, D) the same of the base model, without one; None where there is no KL.
        head: (V, D) frozen output projection, of both models.
        targets: (N,) token ids.
        chunk_positions: positions whose logits are held at a time; it changes memory alone.

    Reference: the KL of Hinton et al., arXiv 1503.02531, at temperature 1; the gradient within the
    forward pass is that of Liger-Kernel's fused linear cross entropy, arXiv 2410.10989.
    """
    assert teacher is None or not teacher.requires_grad
    assert teacher is not None or kl_weight == 0
    assert not head.requires_grad
    loss, nll, kl = _ChunkedLoss.apply(
        student, teacher, head, targets, next_token_weight, kl_weight, chunk_positions
    )
    return Distillation(loss, nll, None if teacher is None else kl)


def _log_softmax(logits: Tensor) -> Tensor:
    """(C, V) in place where the logits are fp32 or fp64 already."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits.sub_(torch.logsumexp(logits, dim=-1, keepdim=True))
