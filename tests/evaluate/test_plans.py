"""The survey's measuring: in memory, the base run once, finished plans never again."""

import pytest
import torch
from tiny import LAYERS

from tasks.contracts import ConversionPlan, PlanItem, Spec
from tasks.evaluate.plans import converted_copy, measure_plans
from tasks.registry import Component
from tasks.strategies.base import Strategy
from tasks.strategies.keep import Keep
from tasks.strategies.streaming import Streaming

METRICS = (
    Spec(name="perplexity", texts=["english"], rows=2, row_tokens=200),
    Spec(name="divergence", texts=["english"], rows=2, row_tokens=200),
    Spec(name="passkey", prompts=3, prompt_tokens=400),
    Spec(name="kv_cache", tokens=[64], prefill_tokens=0),
)
BASE_FORWARDS = 2 + 3  # rows and prompts


def plan(base, streaming: dict[int, int]) -> ConversionPlan:
    """Layer -> window; the other layers are kept."""
    items = [
        PlanItem(start=i, stop=i + 1, strategy="streaming", params={"sinks": 2, "window": w})
        if (w := streaming.get(i))
        else PlanItem(start=i, stop=i + 1, strategy="keep")
        for i in range(LAYERS)
    ]
    return ConversionPlan(
        model_sha256=base.sha256, layers=LAYERS, context_tokens=64, selector="test", items=items
    )


def test_plans_share_the_base_and_equal_plans_each_other(stored, context, forwards):
    base, texts = stored.base, stored.texts
    plans = {
        "keep": plan(base, {}),
        "two": plan(base, {0: 6, 2: 6}),
        "same": plan(base, {0: 6, 2: 6}),
        "wide": plan(base, {0: 90}),
    }
    compared = measure_plans(base, plans, texts, METRICS, context)
    assert len(forwards) == BASE_FORWARDS * 3  # base, two, wide
    assert list(compared.plans) == list(plans)
    assert compared.plans["two"] == compared.plans["same"]
    base_figures = [
        [m for m in measurements if m.arm == "base"] for measurements in compared.plans.values()
    ]
    assert all(figures == base_figures[0] for figures in base_figures)
    keep, two, wide = (compared.values(name) for name in ("keep", "two", "wide"))
    assert keep["perplexity_ratio.english"] == 1
    assert keep["kl_mean.english"] == 0
    assert keep["top1_agreement.english"] == 1
    assert 0 < wide["kl_mean.english"] < two["kl_mean.english"]
    assert two["kv_bytes.64"] / keep["kv_bytes.64"] == (2 * 64 + 2 * 7) / (4 * 64)
    assert "at least 92 tokens" in next(
        m.detail for m in compared.plans["two"] if m.metric == "recall.passkey"
    )


def test_a_survey_goes_on_after_a_kill(stored, context, forwards):
    base, texts = stored.base, stored.texts
    plans = {"one": plan(base, {1: 6}), "two": plan(base, {0: 6, 2: 6})}
    forwards.limit = BASE_FORWARDS * 2 + 2  # dies in the second plan
    with pytest.raises(KeyboardInterrupt):
        measure_plans(base, plans, texts, METRICS, context)
    forwards.limit = None
    resumed = measure_plans(base, plans, texts, METRICS, context)
    assert len(forwards) <= BASE_FORWARDS * 3 + 1  # the prompt that it died on, again
    assert set(resumed.plans) == {"one", "two"}
    before = len(forwards)
    again = measure_plans(base, plans, texts, METRICS, context)
    assert len(forwards) == before
    assert again.plans == resumed.plans


def test_a_copy_shares_what_its_strategies_do_not_change(hybrid):
    class Doubled(Strategy):  # without a name, so it is not registered
        def layer_spec(self, base_spec):
            return base_spec

        def transform(self, name, tensor, layer):
            return tensor * 2 if name == "mlp.down_proj.weight" else tensor

    base = hybrid()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    copy = converted_copy(base, [Keep(), Doubled(), Streaming(sinks=1, window=5), Keep()])
    assert base.config.layer_specs[2]["mixer"]["kind"] == "full"
    assert copy.config.layer_specs[2]["mixer"] == {"kind": "streaming", "sinks": 1, "window": 5}
    assert copy.config.layer_specs[1]["mixer"] == {"kind": "full"}
    changed = "model.layers.1.mlp.down_proj.weight"
    own = dict(base.named_parameters())
    for name, weight in copy.named_parameters():
        assert (weight.data_ptr() == own[name].data_ptr()) == (name != changed), name
    assert torch.equal(copy.get_parameter(changed), before[changed] * 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert ("strategy", "doubled") not in Component._known
