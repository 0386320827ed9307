"""Gated linear attention: checks the arguments, chooses an implementation and runs it.

Shapes: B batch, H query heads, G key/value heads, T tokens, d key channels, e value channels, c = d
or e decayed channels.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.choice import choose_implementation
from layerwright.kernels.gated_recurrence.chunked import gated_recurrence_chunked
from layerwright.kernels.gated_recurrence.reference import gated_recurrence_reference


def _fused(*arguments: Any) -> tuple[Tensor, Tensor]:
    from layerwright.kernels.gated_recurrence.fused import gated_recurrence_fused

    return gated_recurrence_fused(*arguments)


IMPLEMENTATIONS = {
    "reference": gated_recurrence_reference,
    "blockwise": gated_recurrence_chunked,
    "triton": _fused,
}


def gated_recurrence(
    q_BHTd: Tensor,
    k_BGTd: Tensor,
    v_BGTe: Tensor,
    log_decay_BGTc: Tensor,
    initial_state: Tensor | None = None,
    *,
    decayed: str = "key",
    mask_BT: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Gated linear attention over a state whose channels decay (GLA, arXiv 2312.06635, section 4).

    S_t[i, j] = a_t[i] S_{t-1}[i, j] + k_t[i] v_t[j], y_t = q_t S_t, with a = exp(log_decay). With
    decayed="value", a_t[j] replaces a_t[i]. The caller applies feature maps, scales and gates. All
    sums are in fp32 (fp64 for fp64 inputs), whatever the dtype of the inputs.

    Args:
        q_BHTd: queries; head h reads the state of head h // (H / G).
        log_decay_BGTc: log of the factor on the state before each token is added, <= 0; -inf is
            allowed. Per key channel (c = d) or per value channel (c = e).
        initial_state: state (B, G, d, e) before the first token; None for zero.
        decayed: "key" or "value".
        mask_BT: False for padding. Padding leaves the state unchanged, gives y = 0, and its inputs
            are never read.
        return_state: also return the state after the last token.

    Returns:
        y (B, H, T, e) in the dtype of q; with `return_state` also the state (B, G, d, e) in fp32
        (fp64 for fp64 inputs).

    Raises:
        ValueError: shapes do not match, there is no token, `decayed` is unknown, or
            LAYERWRIGHT_KERNELS is invalid (`layerwright.kernels.choice`).
    """
    _check_shapes(q_BHTd, k_BGTd, v_BGTe, log_decay_BGTc, initial_state, decayed)
    channels = max(q_BHTd.shape[3], v_BGTe.shape[3])
    run = choose_implementation("gated_recurrence", IMPLEMENTATIONS, q_BHTd, channels)
    inputs = [q_BHTd, k_BGTd, v_BGTe, log_decay_BGTc]
    if mask_BT is not None:
        inputs = [x.masked_fill(~mask_BT[:, None, :, None], 0) for x in inputs]
    dtype = torch.promote_types(q_BHTd.dtype, torch.float32)
    if initial_state is None:
        B, G, _, d = k_BGTd.shape
        initial_state = k_BGTd.new_zeros(B, G, d, v_BGTe.shape[3], dtype=dtype)
    # autocast would compute products with the state in half precision
    with torch.autocast(q_BHTd.device.type, enabled=False):
        out_BHTe, state_BGde = run(*inputs, initial_state.to(dtype), decayed)
    out_BHTe = out_BHTe.to(q_BHTd.dtype)
    return (out_BHTe, state_BGde) if return_state else out_BHTe


def _check_shapes(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None, decayed: str
) -> None:
    if decayed not in ("key", "value"):
        raise ValueError(f"decayed must be 'key' or 'value', got {decayed!r}")
    (B, G, T, d), e = k.shape, v.shape[3]
    if T == 0:
        raise ValueError("expected at least one token, got none")
    if q.shape[1] % G:
        raise ValueError(f"{q.shape[1]} query heads are not a multiple of {G} key/value heads")
    expected = {
        "q": (q, (B, q.shape[1], T, d)),
        "v": (v, (B, G, T, e)),
        "log_decay": (log_decay, (B, G, T, d if decayed == "key" else e)),
    }
    if state is not None:
        expected["initial_state"] = state, (B, G, d, e)
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            given = f"for keys of {tuple(k.shape)}, got {tuple(tensor.shape)}"
            raise ValueError(f"{name} must have shape {shape} {given}")
