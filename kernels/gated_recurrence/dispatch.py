"""Choice of the implementation of gated recurrence.

Shapes: B batch, H query heads, G key/value heads, T tokens, d key channels, e value channels,
c = d or e decayed channels.
"""

import torch
from torch import Tensor

from layerwright.kernels.choice import chosen
from layerwright.kernels.gated_recurrence.chunked import gated_recurrence_chunked
from layerwright.kernels.gated_recurrence.reference import gated_recurrence_reference


def _fused(*arguments):
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
    """Linear attention over a state whose channels decay (GLA, arXiv 2312.06635, section 4).

    S_t[i, j] = a_t[i] S_{t-1}[i, j] + k_t[i] v_t[j] with a = exp(log_decay), y_t = q_t S_t; with
    decayed="value" a_t[j] takes the place of a_t[i]. Feature maps, scales and gates are the
    caller's. In fp32 (fp64 for fp64 inputs) whatever the inputs.

    Args:
        q_BHTd: queries; head h reads the state of head h // (H / G).
        k_BGTd, v_BGTe: keys and values.
        log_decay_BGTc: logarithm of the share kept of the state before each token, <= 0, -inf
            allowed; per key channel (c = d), or per value channel (c = e).
        initial_state: (B, G, d, e) before the first token; None for zero.
        decayed: "key" or "value", the channels that decay.
        mask_BT: False where a token is padding: it leaves the state as it is, gives y = 0, and
            what it holds is never read.
        return_state: also return the state after the last token.

    Returns:
        (B, H, T, e) in the dtype of q; with `return_state` also (B, G, d, e) in fp32 (fp64).

    Raises:
        ValueError: shapes that do not fit, no token, `decayed` unknown, or an implementation in
            LAYERWRIGHT_KERNELS that is unknown or cannot run here (`layerwright.kernels.choice`).
    """
    _check_shapes(q_BHTd, k_BGTd, v_BGTe, log_decay_BGTc, initial_state, decayed)
    channels = max(q_BHTd.shape[3], v_BGTe.shape[3])
    run = chosen("gated_recurrence", IMPLEMENTATIONS, q_BHTd, channels)
    if mask_BT is not None:
        padding_B1T1 = ~mask_BT[:, None, :, None]
        q_BHTd, k_BGTd, v_BGTe, log_decay_BGTc = (
            x.masked_fill(padding_B1T1, 0) for x in (q_BHTd, k_BGTd, v_BGTe, log_decay_BGTc)
        )
    dtype = torch.promote_types(q_BHTd.dtype, torch.float32)
    if initial_state is None:
        B, G, _, d = k_BGTd.shape
        initial_state = k_BGTd.new_zeros(B, G, d, v_BGTe.shape[3], dtype=dtype)
    # autocast would take the products of the state in half precision
    with torch.autocast(q_BHTd.device.type, enabled=False):
        out_BHTe, state_BGde = run(
            q_BHTd, k_BGTd, v_BGTe, log_decay_BGTc, initial_state.to(dtype), decayed
        )
    out_BHTe = out_BHTe.to(q_BHTd.dtype)
    return (out_BHTe, state_BGde) if return_state else out_BHTe


def _check_shapes(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None, decayed: str
) -> None:
    if decayed not in ("key", "value"):
        raise ValueError(f"decayed must be 'key' or 'value', got {decayed!r}")
    B, G, T, d = k.shape
    e = v.shape[3]
    if T == 0:
        raise ValueError("at least one token is needed, got none")
    if q.shape[1] % G:
        raise ValueError(f"{q.shape[1]} query heads are not a multiple of {G} key heads")
    expected = {
        "q": (q, (B, q.shape[1], T, d)),
        "v": (v, (B, G, T, e)),
        "log_decay": (log_decay, (B, G, T, d if decayed == "key" else e)),
    }
    if state is not None:
        expected["initial_state"] = state, (B, G, d, e)
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} for keys of {tuple(k.shape)}, got "
                f"{tuple(tensor.shape)}"
            )
