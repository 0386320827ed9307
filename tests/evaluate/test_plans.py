"""The survey's measuring: in memory, the base run once, finished plans never again."""

from dataclasses import replace

import pytest
import torch
from tiny import LAYERS, tiny_tokens

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.references import Calibration
from layerwright.tasks.evaluate.metrics.divergence import Divergence
from layerwright.tasks.evaluate.metrics.kv_cache import KVCache
from layerwright.tasks.evaluate.metrics.perplexity import Perplexity
from layerwright.tasks.evaluate.metrics.recall import Recall
from layerwright.tasks.evaluate.plans import measure_plans
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.fitting import converted_copy
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.strategies.specs import Assignment
from layerwright.tasks.strategies.streaming import Streaming

METRICS = (
    Perplexity(texts=("english",), rows=2, row_tokens=200),
    Divergence(texts=("english",), rows=2, row_tokens=200),
    Recall(prompts=3, prompt_tokens=(400,)),
    KVCache(tokens=(64,), prefill_tokens=0),
)


def rows_of(texts, rows: int = 4) -> Calibration:
    return Calibration(text=texts["english"], rows=rows, row_tokens=60)


BASE_FORWARDS = 2 + 3 * 6  # rows; prompts, each with the five tokens of its key


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
    compared = measure_plans(base, plans, texts, METRICS, rows_of(texts), context)
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
        m.detail for m in compared.plans["two"] if m.metric == "recall.passkey.400"
    )


def test_a_survey_goes_on_after_a_kill(stored, context, forwards):
    base, texts = stored.base, stored.texts
    plans = {"one": plan(base, {1: 6}), "two": plan(base, {0: 6, 2: 6})}
    forwards.limit = BASE_FORWARDS * 2 + 2  # dies in the second plan
    with pytest.raises(KeyboardInterrupt):
        measure_plans(base, plans, texts, METRICS, rows_of(texts), context)
    forwards.limit = None
    resumed = measure_plans(base, plans, texts, METRICS, rows_of(texts), context)
    assert len(forwards) <= BASE_FORWARDS * 3 + 1  # the prompt that it died on, again
    assert set(resumed.plans) == {"one", "two"}
    before = len(forwards)
    again = measure_plans(base, plans, texts, METRICS, rows_of(texts), context)
    assert len(forwards) == before
    assert again.plans == resumed.plans


def test_a_copy_shares_what_its_strategies_do_not_change(hybrid):
    base = hybrid()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    parts = [
        Assignment(0, 1, Keep()),
        Assignment(1, 2, Remove(patch=True)),
        Assignment(2, 3, Streaming(sinks=1, window=5)),
        Assignment(3, 4, Keep()),
    ]
    copy = converted_copy(base, parts, lambda: tiny_tokens(4, 60))
    assert [spec["mixer"]["kind"] for spec in base.config.layer_specs] == ["full"] * 4
    assert copy.config.layer_specs[2]["mixer"] == {"kind": "streaming", "sinks": 1, "window": 5}
    changed = "model.layers.0.mlp.down_proj.weight"
    own = dict(base.named_parameters())
    for name, weight in copy.named_parameters():
        assert not name.startswith("model.layers.1.")
        assert (weight.data_ptr() == own[name].data_ptr()) == (name != changed), name
    assert not torch.equal(copy.get_parameter(changed), before[changed])
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_plans_of_a_base_larger_than_memory_give_the_same_figures(stored, context, tmp_path):
    base, texts = stored.base, stored.texts
    keep = PlanItem(start=3, stop=4, strategy="keep")
    items = (
        PlanItem(start=0, stop=2, strategy="linear"),
        PlanItem(start=2, stop=3, strategy="streaming", params={"sinks": 2, "window": 6}),
        keep,
    )
    patched = (
        PlanItem(start=0, stop=1, strategy="keep"),
        PlanItem(start=1, stop=3, strategy="remove", params={"patch": True}),
        keep,
    )
    plans = {
        name: plan(base, {}).model_copy(update={"items": made})
        for name, made in (("mixed", items), ("patched", patched))
    }
    expected = measure_plans(base, plans, texts, METRICS, rows_of(texts), context)
    with load_streamed(context.store.open_tree(base.sha256), resident_layers=1) as streamed:
        memory = streamed.peak_resident_bytes
    bounded = replace(context, workdir=tmp_path / "bounded", memory_bytes=memory)
    found = measure_plans(base, plans, texts, METRICS, rows_of(texts), bounded)
    assert found.plans == expected.plans


def test_what_is_fitted_on_other_rows_is_another_model(stored, context):
    texts = stored.texts
    linear = ConversionPlan(
        model_sha256=stored.base.sha256,
        layers=LAYERS,
        context_tokens=64,
        selector="test",
        items=(
            PlanItem(start=0, stop=1, strategy="keep"),
            PlanItem(start=1, stop=3, strategy="linear"),
            PlanItem(start=3, stop=4, strategy="keep"),
        ),
    )
    figures = [
        measure_plans(stored.base, {"linear": linear}, texts, METRICS[:1], rows, context).values(
            "linear"
        )
        for rows in (rows_of(texts), rows_of(texts, rows=3), rows_of(texts))
    ]
    assert figures[0] == figures[2] != figures[1]
