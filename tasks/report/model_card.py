"""The model card: the README.md of an exported checkpoint, and part of a version's evidence.

The card is no file of the checkpoint: its evaluation is made after the checkpoint's digest.
"""

from itertools import groupby
from typing import Literal

from layerwright.tasks.contracts.base import Contract, identity
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.report.formats import options
from layerwright.tasks.report.returns import return_sentence
from layerwright.tasks.report.summary import gate_markdown, markdown_table, metrics_markdown
from layerwright.tasks.report.verdict import KEEP, plan_sentence

Form = Literal["transformers", "stock", "gguf"]
CODE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
model = AutoModelForCausalLM.from_pretrained(folder{options})
tokenizer = AutoTokenizer.from_pretrained(folder{options})
inputs = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
```
"""
LOADING: dict[Form, tuple[str, str]] = {
    "transformers": (
        "The folder contains the model's code. It needs only torch and Transformers.",
        ", trust_remote_code=True",
    ),
    "stock": ("The model uses Transformers' own classes; the folder contains no code.", ""),
    "gguf": (
        "One GGUF file in the stock form. Transformers can read it:",
        ', gguf_file="model.gguf"',
    ),
}


class CardEvidence(Contract):
    """The evaluation and decision of the run that made the checkpoint."""

    run_id: str
    evaluation: EvalReport
    decision: GateDecision
    cost: CostAndReturn | None = None


class CardFacts(Contract):
    """The contents of a card; ``evidence`` is None if the run is unknown."""

    base_source: str  # names no folder of this machine
    base_sha256: str
    license: str | None = None  # of the base; None if its files do not say
    plan: ConversionPlan
    checkpoint_sha256: str | None = None
    evidence: CardEvidence | None = None


def render_card(facts: CardFacts, form: Form) -> str:
    """The card of an exported form as Markdown, with Hugging Face's metadata at the top."""
    from huggingface_hub import ModelCardData  # here, because it is slow to import

    strategies = sorted({item.strategy for item in facts.plan.items} - {KEEP})
    metadata = ModelCardData(
        base_model=base_name(facts.base_source),
        license=facts.license or "unknown",
        library_name="gguf" if form == "gguf" else "transformers",
        pipeline_tag="text-generation",
        tags=["layerwright", *strategies, *(["custom_code"] if form == "transformers" else [])],
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {base_name(facts.base_source)}, converted layer by layer",
        _opening(facts),
        "## How to load it",
        f"{LOADING[form][0]}\n\n{CODE.format(options=LOADING[form][1])}",
        "## Strategy of each layer",
        _layers(facts.plan),
        "## Evidence",
        _evidence(facts.evidence),
        "## License",
        _license(facts.license),
        "## Digests",
        _digests(facts),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def base_name(source: str) -> str:
    """``owner/name`` for a model of Hugging Face's hub; the unchanged source otherwise."""
    return source.removeprefix("hf:").partition("@")[0] if source.startswith("hf:") else source


def _opening(facts: CardFacts) -> str:
    sentence = f"In {base_name(facts.base_source)}, {plan_sentence(facts.plan)}."
    if facts.evidence is None:
        return f"{sentence} **It was not judged**: its evaluation is unknown."
    if facts.evidence.decision.accepted:
        return f"{sentence} **Accepted** by the gate."
    return f"{sentence} **Rejected by the gate: do not use it.**"


def _layers(plan: ConversionPlan) -> str:
    groups: dict[tuple[str, str], list[int]] = {}
    for item in plan.items:
        key = (item.strategy, options(item.params))
        groups.setdefault(key, []).extend(range(item.start, item.stop))
    return markdown_table(
        ("Strategy", "Options", "Layers"),
        ((strategy, params, _runs(layers)) for (strategy, params), layers in groups.items()),
    )


def _runs(layers: list[int]) -> str:
    """Layer numbers as ranges: ``0-3, 7``."""
    runs = [
        [layer for _, layer in run]
        for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _evidence(evidence: CardEvidence | None) -> str:
    if evidence is None:
        return (
            "None: this folder was not exported from a run. An export from a run includes its "
            "evaluation."
        )
    method = (
        f"Base and candidate were measured in the same run ({evidence.run_id}) on the same items, "
        f"on {evidence.evaluation.device}. Parentheses contain 95 % confidence intervals; for "
        "timings, the fastest and the slowest repeat."
    )
    parts = [method, metrics_markdown(evidence.evaluation)]
    if evidence.cost:
        parts.append(return_sentence(evidence.cost))
    return "\n\n".join([*parts, "### Gate", gate_markdown(evidence.decision)])


def _license(name: str | None) -> str:
    if name is None:
        return (
            "The base's license is unknown: its files do not name it. It also applies to these "
            "weights, so look it up before you use or share them."
        )
    return f"The base's license, `{name}` according to its files, also applies to these weights."


def _digests(facts: CardFacts) -> str:
    table = {"checkpoint": facts.checkpoint_sha256, "base": facts.base_sha256}
    table["plan"] = identity(facts.plan)
    rows = ((what, f"`{sha}`") for what, sha in table.items() if sha)
    return markdown_table(("What", "sha256"), rows)
