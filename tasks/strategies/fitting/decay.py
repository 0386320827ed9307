"""Fits how slowly a recurrent state decays, from the distances that the layer's attention spans.

Shapes: B rows, T tokens, H query heads, G key/value heads, d head size, c channels of a gate.
"""

import torch
from scipy.optimize import brentq
from torch import Tensor

from layerwright.tasks.hybrid.mixers.attention import AttentionMixer
from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence
from layerwright.tasks.strategies.fitting.stretch import Stretch

LAST_QUERIES = 32  # per row, as for the lazy ratio
LAST_KEYS = 256  # per row, enough to average the gate
MAX_BIAS = 60.0  # limit of a bias, where sigmoid saturates


def decay_bias(stretch: Stretch, mixer: GatedRecurrence) -> Tensor:
    """A bias on the gate's logits (G, c), fitted so that the state decays as attention does.

    D_g is the mean distance, in tokens, of the attention mass that the heads of group g put outside
    ``mixer``'s sinks and window. b_g solves: mean over tokens and channels of -log G(k + b_g) = 1 /
    D_g, so that the state's time constant is that distance. All channels of a head get the same
    bias and keep their differences. A head without such mass keeps its gate. Initialisation from
    statistics of attention: arXiv 2606.16429.

    The stretch is one layer with full attention; ``mixer`` shares its projections.
    """
    ((layer,), spec) = stretch.layers, mixer.spec
    sums: list[tuple[Tensor, Tensor]] = []
    keys = []
    for batch in stretch.batches:
        hidden = layer.input_layernorm(batch.x)
        rotary = batch.placement.rotary
        sums.append(far_attention(mixer, hidden, rotary, spec["sinks"], spec["window"]))
        keys.append(mixer.heads(hidden)[1][:, :, -LAST_KEYS:].float())
    mass, distance = (sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True))
    k_BGTd = torch.cat(keys)
    bias = mixer.decay_bias
    assert bias is not None

    def rate(value: float, head: int) -> float:
        bias.data.fill_(value)
        return -mixer.log_decay(k_BGTd)[:, head].double().mean().item()

    bias_Gc = torch.zeros_like(bias)
    for head, target_rate in enumerate((mass / distance).tolist()):
        if rate(MAX_BIAS, head) < target_rate < rate(-MAX_BIAS, head):  # false for NaN
            bias_Gc[head] = brentq(
                lambda b, h=head, w=target_rate: rate(b, h) - w, -MAX_BIAS, MAX_BIAS
            )
    return bias_Gc


def far_attention(
    mixer: AttentionMixer,
    hidden_BTD: Tensor,
    rotary: tuple[Tensor, Tensor],
    sinks: int,
    window: int,
) -> tuple[Tensor, Tensor]:
    """Sums of A and of A · distance outside sinks and window, per key/value head: (G,) fp64 each.

    A is full attention of each row's last queries; no T × T matrix is allocated.
    """
    q, k, _ = mixer.project(hidden_BTD, rotary)
    T, G = k.shape[2], k.shape[1]
    q = q[:, :, -LAST_QUERIES:].float()
    grouped = q.unflatten(1, (G, -1))  # (B, G, H / G, Q, d)
    scores = grouped @ k.float()[:, :, None].mT * q.shape[-1] ** -0.5
    keys = torch.arange(T, device=k.device)
    distance = keys[T - q.shape[2] :, None] - keys
    weights = scores.masked_fill(distance < 0, -torch.inf).softmax(-1)
    far = weights * ((distance >= window) & (keys >= sinks))
    far_sum, distance_sum = (x.double().sum((0, 2, 3, 4)) for x in (far, far * distance))
    return far_sum, distance_sum
