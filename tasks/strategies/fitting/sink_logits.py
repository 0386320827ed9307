"""Fits the sink logits of a window, so that it loses little of what full attention computes.

Shapes: B rows, T tokens, N queries, D hidden size, H query heads, G key/value heads, d head size.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.mixers.full import UNLIMITED
from layerwright.tasks.strategies.fitting.stretch import Stretch

FIRST_TOKENS = 4  # the tokens that a language model uses as sinks (arXiv 2309.17453)
MAX_QUERIES = 8192  # enough for the few numbers of a layer


def mean_logits(stretch: Stretch, window: int) -> Tensor:
    """The closed form (H,): mean log-sum-exp of the first tokens' scores, for queries past them.

    Raises:
        InputError: no calibration row is longer than the window.
    """
    return torch.stack([first for _, _, _, first in _queries(stretch, window)]).mean(0)


def fitted_logits(stretch: Stretch, window: int) -> Tensor:
    """The logits (H,) that bring the window's output nearest to that of full attention.

    With the window's output o_h and log-sum-exp l_h of a query, a logit scales a head's output by
    g_h = sigmoid(l_h - a_h). The logits minimise, over the queries whose window has lost a token,
    ||sum_h g_h W_h o_h - t||², where t is the output of full attention on the same input and W_h
    the head's part of the output projection. The search starts from `mean_logits`.

    Raises:
        InputError: no calibration row is longer than the window.
    """
    grams, crosses, lses, firsts = zip(*_queries(stretch, window), strict=True)
    gram_NHH, cross_NH, lse_NH = (torch.cat(x).double().numpy() for x in (grams, crosses, lses))

    def error(logits_H: np.ndarray) -> tuple[float, np.ndarray]:
        scale_NH = 1 / (1 + np.exp(logits_H - lse_NH))
        towards_NH = np.einsum("nhk,nk->nh", gram_NHH, scale_NH) - cross_NH
        value = ((towards_NH - cross_NH) * scale_NH).sum()
        gradient = -2 * (towards_NH * scale_NH * (1 - scale_NH)).sum(0)
        return value / len(lse_NH), gradient / len(lse_NH)

    start = torch.stack(firsts).mean(0).double().numpy()
    found = minimize(error, start, jac=True, method="L-BFGS-B")
    return torch.from_numpy(found.x).float()


def _queries(stretch: Stretch, window: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """For each batch: Gram matrices (N, H, H) of W_h o_h, their products with t (N, H), the
    window's log-sum-exp (N, H), and the mean log-sum-exp of the first tokens' scores (H,).
    """
    ((layer,), found) = stretch.layers, []
    longest = max(ids.shape[1] for ids in stretch.ids)
    if longest <= window:
        raise InputError(
            f"the calibration rows have {longest} tokens, no more than the window of {window}",
            where="profile.row_tokens",
            expected=f"more than {window}, so that the window loses tokens that can be fitted to",
        )
    each = max(MAX_QUERIES // len(stretch.ids), 1)
    with stretch.at_work(layer):
        mixer = layer.self_attn
        for batch in stretch.batches:
            q, k, v = mixer.project(layer.input_layernorm(batch.x), batch.placement.rotary)
            B, H, T, d = q.shape
            places = torch.arange(T)[None]
            step = max(B * (T - window) // each, 1)
            late = torch.arange(window, T, step)
            q, at = q[:, :, late], places[:, late]
            reach = mixer.spec.get("window", UNLIMITED)  # a base may have windows of its own
            full = streaming_attention(q, k, v, at, places, 0, reach)
            out, lse = streaming_attention(q, k, v, at, places, 0, window, return_lse=True)
            k, v, places = k[:, :, :FIRST_TOKENS], v[:, :, :FIRST_TOKENS], places[:, :FIRST_TOKENS]
            _, first = streaming_attention(q, k, v, at, places, 0, UNLIMITED, return_lse=True)
            weight_DHd = mixer.o_proj.weight.float().unflatten(1, (H, d))
            by_head_NHD = torch.einsum("bhtd,ehd->bthe", out.float(), weight_DHd).flatten(0, 1)
            target_ND = torch.einsum("bhtd,ehd->bte", full.float(), weight_DHd).flatten(0, 1)
            gram_NHH = by_head_NHD @ by_head_NHD.mT
            cross_NH = torch.einsum("nhe,ne->nh", by_head_NHD, target_ND)
            by_query = (gram_NHH, cross_NH, lse.transpose(1, 2).flatten(0, 1))
            found.append((*(x.cpu() for x in by_query), first.float().mean((0, 2)).cpu()))
    return found
