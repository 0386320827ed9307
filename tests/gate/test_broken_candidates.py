"""Broken checkpoints, evaluated for real and judged: each is rejected for its own reason."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gate.evidence import NOW
from tiny import LAYERS, tiny_llama
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.evaluation import Champion, EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.items import read_items
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.evaluate.models import evaluate_models
from layerwright.tasks.gate.policy import decide
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.recipe.evaluate import EvaluateOptions
from layerwright.tasks.recipe.gate import GatePolicy, GateRule
from layerwright.tasks.store.local import LocalStore

OPTIONS = EvaluateOptions(
    metrics=(
        Spec(name="perplexity", texts=["words"], rows=12, row_tokens=257),
        Spec(name="divergence", texts=["words"], rows=12, row_tokens=257),
        Spec(name="kv_cache", tokens=[256], prefill_tokens=256),
        Spec(name="recall", prompts=2, prompt_tokens=[400]),
    )
)
POLICY = GatePolicy(
    rules=(
        GateRule(metric="perplexity.*", max=1.05, on="bound"),
        GateRule(metric="perplexity.*", max=1.05, on="bound", slice="positions 128-255"),
        GateRule(metric="top1_agreement.*", compare="value", min=0.85, on="bound"),
        GateRule(metric="kl_p99.*", compare="value", max=1.0),
        GateRule(metric="kv_bytes.*", max=1.0),
    ),
    min_items=12,
)
NO_SINKS = {"mixer": {"kind": "streaming", "sinks": 0, "window": 4}}


def checkpoint(change: Callable[[HybridForCausalLM], None]) -> HybridForCausalLM:
    base = tiny_llama()
    model = HybridForCausalLM(from_base_config(base.config))
    model.load_state_dict(base.state_dict())
    change(model)
    return model


@torch.no_grad()
def spoil(model: HybridForCausalLM) -> None:
    model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan


def narrow(model: HybridForCausalLM) -> None:
    for layer in range(LAYERS):
        model.set_layer_spec(layer, NO_SINKS)


CANDIDATES = {"same": lambda model: None, "nan": spoil, "no sinks": narrow}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, ModelRef, dict, dict]:
    """The base, every candidate and a text, in a store."""
    folder = tmp_path_factory.mktemp("broken")
    store = LocalStore(folder / "store")

    def keep(model: torch.nn.Module) -> dict:
        model.save_pretrained(folder / "model")
        byte_tokenizer().save_pretrained(folder / "model")
        return store.put_tree(folder / "model").model_dump()

    base = ModelRef(
        **keep(tiny_llama()), source="tiny", family="llama", layers=LAYERS, hidden_size=48,
        kv_heads=2, head_dim=8, vocabulary=259, max_positions=512, parameters=0, dtype="float32",
    )  # fmt: skip
    candidates = {
        name: CheckpointRef(
            **keep(checkpoint(change)), base_sha256=base.sha256, plan_sha256="0" * 64
        )
        for name, change in CANDIDATES.items()
    }
    (folder / "text").mkdir()
    words = " ".join(f"word{i * i % 97} and {i % 13}" for i in range(400))
    (folder / "text" / "documents.jsonl").write_text(f'{{"text": "{words}"}}\n')
    text = TextRef(
        **store.put_tree(folder / "text").model_dump(), source="", documents=1, characters=1
    )
    return Context(store=store, workdir=folder / "work"), base, candidates, {"words": text}


def judged(
    inputs, name: str, options: EvaluateOptions = OPTIONS, champion: Champion | None = None
) -> tuple[EvalReport, GateDecision]:
    context, base, candidates, texts = inputs
    report = evaluate_models(base, candidates[name], None, champion, texts, options, context)
    shutil.rmtree(context.workdir / "metrics")  # as after success; what the models did stays
    items = read_items(context.store.open_tree(report.items.sha256))
    return report, decide(report, items, POLICY, NOW)


def test_an_identical_model_passes_on_real_items(inputs) -> None:
    report, decision = judged(inputs, "same")
    assert decision.accepted, decision.failed()
    by_rule = {check.rule: check for check in decision.checks}
    whole = by_rule["ratio to the base <= 1.05, 95 % bound"]
    assert (whole.value, whole.bound, whole.items) == (1, 1, 24)
    late = by_rule["ratio to the base, positions 128-255 <= 1.05, 95 % bound"]
    assert (late.value, late.items) == (1, 12)
    assert report.arms == ("base", "candidate")


def test_logits_that_are_no_numbers(inputs) -> None:
    _, decision = judged(inputs, "nan")
    reasons = {check.metric: check.reason for check in decision.rejecting}
    assert set(reasons) == {"perplexity.words", "top1_agreement.words", "kl_p99.words"}
    assert "3,072 of 3,072 token losses are not finite" in reasons["perplexity.words"]
    assert "divergence is not finite" in reasons["kl_p99.words"]
    assert decision.shown_worse


def test_a_window_without_sinks(inputs) -> None:
    _, decision = judged(inputs, "no sinks")
    reasons = {check.metric: check.reason for check in decision.rejecting}
    assert "outside the limit (at least 0.85)" in reasons["top1_agreement.words"]
    assert "outside the limit (at most 1)" in reasons["kl_p99.words"]
    assert "kv_bytes.256" not in reasons


def test_a_metric_that_was_left_out(inputs) -> None:
    fewer = OPTIONS.model_copy(update={"metrics": OPTIONS.metrics[:1] + OPTIONS.metrics[2:]})
    _, decision = judged(inputs, "same", fewer)
    reasons = {check.metric: check.reason for check in decision.rejecting}
    assert reasons == {
        name: "no measurement matches this name" for name in ("top1_agreement.*", "kl_p99.*")
    }


def test_the_champion_is_measured_in_the_same_run_on_the_same_items(inputs) -> None:
    context, _, candidates, _ = inputs
    champion = Champion(version="7", checkpoint=candidates["no sinks"])
    report, _ = judged(inputs, "same", champion=champion)
    assert report.arms == ("base", "candidate", "champion")
    assert report.champion == champion
    items = read_items(context.store.open_tree(report.items.sha256))
    ids = {
        arm: [i.item for i in items if (i.metric, i.arm) == ("perplexity.words", arm)]
        for arm in report.arms
    }
    assert ids["champion"] == ids["candidate"] == ids["base"]
    assert len(ids["base"]) == 24
    alone, _ = judged(inputs, "no sinks")
    assert report.value("perplexity.words", "champion") == alone.value(
        "perplexity.words", "candidate"
    )
    rule = GateRule(metric="perplexity.words", arm="champion", max=1.1)
    (check,) = decide(report, items, GatePolicy(rules=(rule,)), NOW).checks
    ratio = report.value("perplexity.words", "base") / alone.value("perplexity.words", "candidate")
    assert check.value == pytest.approx(ratio)


def test_every_figure_with_items_follows_from_them(inputs) -> None:
    context = inputs[0]
    report, _ = judged(inputs, "no sinks")
    items = read_items(context.store.open_tree(report.items.sha256))
    families = {m.metric.split(".")[0] for m in report.measurements if m.aggregate}
    assert families == {
        "perplexity", "perplexity_ratio", "kl_mean", "top1_agreement", "recall", "key_log_prob",
    }  # fmt: skip
    assert {i.metric.split(".")[0] for i in items} == families | {"kl_p99"}
    assert Path(report.items.uri.removeprefix("file://")).is_dir()
    slices = {i.slice for i in items if i.metric == "recall.passkey.400"}
    assert slices == {"depth 0.25-0.5", "depth 0.75-1"}
