"""Perplexity without a branch: that of the model whose branch has no share."""

import math

import pytest
import torch
from tiny import LAYER_SPECS

from layerwright.tasks.evaluate.metrics.branches import Branches
from layerwright.tasks.evaluate.passes import TextPass
from layerwright.tasks.passes.likelihood import target_nll

BRANCHES = Branches(texts=("english",), rows=2, row_tokens=64)
MIXER = LAYER_SPECS["gla_sinks_and_bias"]["mixer"]


@pytest.mark.parametrize(("branch", "share"), [("window", "beta"), ("recurrence", "alpha")])
def test_it_is_the_perplexity_of_a_model_without_the_branch(
    make_arms, values, hybrid, branch, share
):
    candidate, without = hybrid(), hybrid()
    spec = {"mixer": {k: v for k, v in MIXER.items() if k != "decay"}}
    candidate.set_layer_spec(1, spec)
    without.set_layer_spec(1, {"mixer": spec["mixer"] | {share: 0.0}})
    arms = make_arms([BRANCHES], candidate=candidate)
    found = values(BRANCHES, arms)
    assert {name for name, _ in found} == set(BRANCHES.names())
    assert {arm for _, arm in found} == {"candidate"}  # the base has no such branches
    ids = arms.texts.rows(TextPass("english", 2, 64))
    with torch.no_grad():
        nll = target_nll(without(ids[:, :-1]).logits, ids[:, 1:]).mean().item()
    measured = found[f"perplexity_without_{branch}.english", "candidate"]
    assert measured.value == pytest.approx(math.exp(nll), rel=1e-5)
    assert measured.low < measured.value < measured.high


def test_a_model_without_recurrences_has_no_such_figure(make_arms, values, hybrid):
    assert not values(BRANCHES, make_arms([BRANCHES], candidate=hybrid(streaming=(0,))))
