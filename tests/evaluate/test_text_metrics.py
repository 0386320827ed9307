"""Perplexity and divergence against the straightforward computation, sharing their passes."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_tokens

from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.metrics.divergence import Divergence
from layerwright.tasks.evaluate.metrics.perplexity import Perplexity
from layerwright.tasks.evaluate.passes import TextScores, run_pass, token_kl
from layerwright.tasks.passes.batches import token_rows

PERPLEXITY = Perplexity(texts=("english",), rows=3, row_tokens=300)
DIVERGENCE = Divergence(texts=("english",), rows=3, row_tokens=300)
BOTH = [PERPLEXITY, DIVERGENCE]


def forwards(model) -> list:
    """Grows by one with each batch that enters the model."""
    calls: list = []
    model.model.embed_tokens.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_perplexity_is_exp_of_the_mean_nll(make_arms, values, hybrid, english):
    base = hybrid()
    arms = make_arms([PERPLEXITY], base=base, candidate=hybrid(streaming=(0, 2)))
    found = values(PERPLEXITY, arms)
    rows = token_rows(english, arms.texts.tokenizer, 3, 300)
    expected = {}
    for arm in ("base", "candidate"):
        with torch.no_grad():
            logits = arms.model(arm)(rows).logits
        nll = F.cross_entropy(logits[:, :-1].flatten(0, 1).double(), rows[:, 1:].flatten())
        expected[arm] = math.exp(nll)
        measured = found["perplexity.english", arm]
        assert measured.value == pytest.approx(expected[arm], rel=1e-5)
        assert measured.low < measured.value < measured.high
        assert measured.count == 3 * 299
    ratio = found["perplexity_ratio.english", "candidate"]
    assert ratio.value == pytest.approx(expected["candidate"] / expected["base"], rel=1e-5)
    assert ratio.low < ratio.value < ratio.high
    assert {name for name, _ in found} == set(PERPLEXITY.names())


def test_divergence_is_the_kl_of_whole_logits(make_arms, values, hybrid, english):
    arms = make_arms(BOTH, candidate=hybrid(streaming=(0, 1, 2, 3)))
    found = values(DIVERGENCE, arms)
    rows = token_rows(english, arms.texts.tokenizer, 3, 300)
    with torch.no_grad():
        p, q = (arms.model(a)(rows).logits[:, :-1].double() for a in ("base", "candidate"))
    kl = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1)
    agreement = (p.argmax(-1) == q.argmax(-1)).double().mean()
    value = {name: m.value for (name, _), m in found.items()}
    assert value["kl_mean.english"] == pytest.approx(kl.mean().item(), rel=1e-4)
    assert value["kl_p99.english"] == pytest.approx(kl.quantile(0.99).item(), rel=1e-4)
    assert value["top1_agreement.english"] == pytest.approx(agreement.item())
    assert kl.mean() > 0.01  # the models do differ
    assert {arm for _, arm in found} == {"candidate"}
    assert set(value) == set(DIVERGENCE.names())


def test_identical_models_do_not_diverge(make_arms, values, hybrid):
    arms = make_arms(BOTH, candidate=hybrid())
    found = values(DIVERGENCE, arms)
    assert found["kl_mean.english", "candidate"].value == 0
    assert found["top1_agreement.english", "candidate"].value == 1
    ratio = values(PERPLEXITY, arms)["perplexity_ratio.english", "candidate"]
    assert (ratio.low, ratio.value, ratio.high) == (1, 1, 1)


def test_one_forward_per_arm_and_row_whatever_the_order(make_arms, values, hybrid):
    base, candidate = hybrid(), hybrid(streaming=(1,))
    counts = [forwards(base), forwards(candidate)]
    arms = make_arms(BOTH, base=base, candidate=candidate)
    values(PERPLEXITY, arms)
    values(DIVERGENCE, arms)
    again = make_arms(BOTH, base=base, candidate=candidate)  # as after a kill: same folder
    values(DIVERGENCE, again)
    values(PERPLEXITY, again)
    assert [len(calls) for calls in counts] == [3, 3]


def test_a_killed_pass_leaves_nothing_that_counts(make_arms, values, hybrid):
    candidate = hybrid(streaming=(1,))
    calls = forwards(candidate)

    def die(*_):
        if len(calls) == 2:
            raise KeyboardInterrupt

    hook = candidate.model.embed_tokens.register_forward_hook(die)
    with pytest.raises(KeyboardInterrupt):
        values(PERPLEXITY, make_arms([PERPLEXITY], candidate=candidate))
    hook.remove()
    found = values(PERPLEXITY, make_arms([PERPLEXITY], candidate=candidate))
    assert found["perplexity.english", "candidate"].count == 3 * 299
    assert len(calls) == 2 + 3


def test_weights_that_are_no_numbers_give_no_value_but_a_reason(make_arms, values, hybrid):
    broken = hybrid()
    with torch.no_grad():
        broken.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    arms = make_arms(BOTH, candidate=broken)
    found = values(PERPLEXITY, arms) | values(DIVERGENCE, arms)
    assert found["perplexity.english", "base"].value is not None
    for (_, arm), measurement in found.items():
        if arm == "candidate":
            assert measurement.value is None
            assert measurement.low is None
            assert "897 of 897" in measurement.detail


def test_a_text_that_is_too_short_is_refused(make_arms, values, hybrid):
    metric = Perplexity(texts=("english",), rows=300, row_tokens=300)
    with pytest.raises(InputError, match=r"english.* has only"):
        values(metric, make_arms([metric], candidate=hybrid()))


def test_the_states_of_bfloat16_models_are_kept_exactly(tmp_path, hybrid):
    model = hybrid(streaming=(0,)).bfloat16()
    rows = tiny_tokens(2, 40)
    run_pass(model, rows, tmp_path / "base", keep_states=True)
    run_pass(model, rows, tmp_path / "again", base=(tmp_path / "base", model.lm_head))
    scores = TextScores.load(tmp_path / "again")
    assert (scores.kl == 0).all()
    assert scores.agrees.all()


def test_kl_is_not_symmetric_and_not_negative():
    p, q = torch.randn(2, 50, 259, generator=torch.Generator().manual_seed(0))
    assert (token_kl(p, q) > 0).all()
    assert not torch.allclose(token_kl(p, q), token_kl(q, p))
