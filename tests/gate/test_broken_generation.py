"""Candidates that are as good as the base but for what they write: rejected, and for that alone."""

from pathlib import Path

import pytest
import torch
from gate.evidence import NOW
from tiny import LAYERS, tiny_llama
from tiny_checkpoint import byte_tokenizer
from tiny_text import write_items, write_text

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
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

REACH = 48  # tokens, of the window: longer than a question and shorter than question and text
QUESTIONS = [{"prompt": f"word{n * n % 97} and"} for n in range(24)]
OPTIONS = EvaluateOptions(
    metrics=(
        Spec(name="perplexity", texts=["words"], rows=24, row_tokens=REACH),
        Spec(name="divergence", texts=["words"], rows=24, row_tokens=REACH),
        Spec(name="prompts", text="questions", match="agreement", max_new_tokens=96),
    )
)
POLICY = GatePolicy(
    rules=(
        GateRule(metric="perplexity.*", max=1.05, on="bound"),
        GateRule(metric="top1_agreement.*", compare="value", min=0.9, on="bound"),
        GateRule(metric="generation.*", min=0.9, on="bound"),
        GateRule(metric="length_ratio.*", compare="value", min=0.9),
        GateRule(metric="length_ratio.*", compare="value", max=1.1),
    )
)


def candidate(broken: str) -> HybridForCausalLM:
    base = tiny_llama()
    model = HybridForCausalLM(from_base_config(base.config))
    model.load_state_dict(base.state_dict())
    if broken == "window":
        for layer in range(LAYERS):
            mixer = {"kind": "streaming", "sinks": 4, "window": REACH - 4}
            model.set_layer_spec(layer, {"mixer": mixer})
    return model


@pytest.fixture
def judged(tmp_path: Path):
    """The decision on a candidate, evaluated for real."""
    context = Context(store=LocalStore(tmp_path / "store"), workdir=tmp_path / "work")

    def keep(model: torch.nn.Module) -> dict:
        model.save_pretrained(tmp_path / "model")
        byte_tokenizer().save_pretrained(tmp_path / "model")
        return context.store.put_tree(tmp_path / "model").model_dump()

    def text(folder: Path) -> TextRef:
        tree = context.store.put_tree(folder).model_dump()
        return TextRef(**tree, source="", documents=1, characters=1)

    words = " ".join(f"word{i * i % 97} and {i % 13}" for i in range(400))
    texts = {
        "words": text(write_text(tmp_path / "words", words)),
        "questions": text(write_items(tmp_path / "questions", QUESTIONS)),
    }
    base = ModelRef(
        **keep(tiny_llama()), source="tiny", family="llama", layers=LAYERS, hidden_size=48,
        kv_heads=2, head_dim=8, vocabulary=259, max_positions=512, parameters=0, dtype="float32",
    )  # fmt: skip

    def judge(model: HybridForCausalLM) -> GateDecision:
        made = CheckpointRef(**keep(model), base_sha256=base.sha256, plan_sha256="0" * 64)
        report = evaluate_models(base, made, None, None, texts, OPTIONS, context)
        items = read_items(context.store.open_tree(report.items.sha256))
        return decide(report, items, POLICY, NOW)

    return judge


def test_an_identical_model_passes(judged) -> None:
    decision = judged(candidate("no"))
    assert decision.accepted, decision.failed()


def test_questions_flat_while_what_is_written_collapses(judged) -> None:
    """Within its window the candidate is the base to the bit; its texts grow out of it."""
    decision = judged(candidate("window"))
    by_metric = {check.metric: check for check in decision.checks}
    assert by_metric["perplexity.words"].value == pytest.approx(1, abs=1e-6)
    assert by_metric["top1_agreement.words"].value == 1
    assert {check.metric for check in decision.rejecting} == {"generation.questions"}
    assert "outside the limit (at least 0.9)" in by_metric["generation.questions"].reason
    assert decision.shown_worse


def test_truncated_generations(judged) -> None:
    """Every token is as likely as in the base, but a text ends at a byte that it often writes."""
    model = candidate("no")
    model.generation_config.eos_token_id = [257, *range(128, 160)]
    decision = judged(model)
    rejecting = {check.metric for check in decision.rejecting}
    assert {"perplexity.words", "top1_agreement.words"}.isdisjoint(rejecting)
    (short,) = [c for c in decision.rejecting if c.metric == "length_ratio.questions"]
    assert short.rule == "value >= 0.9"
    assert short.value < 0.5
    assert "outside the limit (at least 0.9)" in short.reason
