"""How slowly a recurrent state should forget, from where the layer's attention looks.

Shapes: B rows, T tokens, H query heads, G key/value heads, d head size, c channels of a gate.
"""

from __future__ import annotations

import torch
from scipy.optimize import brentq
from torch import Tensor

from layerwright.tasks.hybrid.mixers.attention import AttentionMixer
from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence
from layerwright.tasks.strategies.fitting.stretch import Stretch

LAST_QUERIES = 32  # of each row, as for the lazy ratio
LAST_KEYS = 256  # of each row: enough to average a gate over
WIDEST = 60.0  # of a bias; sigmoid has no more to give beyond


def decay_bias(stretch: Stretch, mixer: GatedRecurrence) -> Tensor:
    """A bias on the gate's logits (G, c), by which each head's state forgets as its attention does.

    With D_g the mean distance, in tokens, of the attention mass that head group g puts outside
    ``mixer``'s sinks and window, b_g solves mean over tokens and channels of -log G(k + b_g) =
    1 / D_g: the state's time constant is that distance. One number a head, so that the channels
    keep their differences. A head without such mass keeps its gate. Initialisation from statistics
    of attention: arXiv 2606.16429.

    Args:
        stretch: one layer, full attention in the model as it is.
        mixer: what the layer becomes, sharing its projections, with a decay bias.
    """
    ((layer,), spec) = stretch.layers, mixer.spec
    mass = distance = None
    keys = []
    for batch in stretch.batches:
        hidden = layer.input_layernorm(batch.x)
        found = far_attention(mixer, hidden, batch.placement.rotary, spec["sinks"], spec["window"])
        mass, distance = found if mass is None else (mass + found[0], distance + found[1])
        keys.append(mixer.heads(hidden)[1][:, :, -LAST_KEYS:].float())
    k_BGTd = torch.cat(keys)

    def rate(bias: float, head: int) -> float:
        mixer.decay_bias.data.fill_(bias)
        return -mixer.log_decay(k_BGTd)[:, head].double().mean().item()

    bias_Gc = torch.zeros_like(mixer.decay_bias)
    for head, wanted in enumerate((mass / distance).tolist()):
        if wanted == wanted and rate(WIDEST, head) < wanted < rate(-WIDEST, head):
            bias_Gc[head] = brentq(lambda b, h=head, w=wanted: rate(b, h) - w, -WIDEST, WIDEST)
    return bias_Gc


def far_attention(
    mixer: AttentionMixer,
    hidden_BTD: Tensor,
    rotary: tuple[Tensor, Tensor],
    sinks: int,
    window: int,
) -> tuple[Tensor, Tensor]:
    """Sums of A and of A · distance outside sinks and window, per key/value head: (G,) fp64 each.

    A is full attention of each row's last queries; nothing T × T is made.
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
