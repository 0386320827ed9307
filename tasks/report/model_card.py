"""The model card: README.md of an exported checkpoint, and part of a version's evidence.

A card cannot lie inside the checkpoint that it describes: a checkpoint is evaluated once it has its
digest. So it is written from the checkpoint's own records and, where there is a run, its evidence.
"""

from __future__ import annotations

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
        "The folder carries the model's code and needs torch and Transformers alone.",
        ", trust_remote_code=True",
    ),
    "stock": ("A model of Transformers' own classes: no code comes with it.", ""),
    "gguf": (
        "One GGUF file, in the stock form. Transformers reads it back as below.",
        ', gguf_file="model.gguf"',
    ),
}


class CardEvidence(Contract):
    """What a run found out about the checkpoint."""

    run_id: str
    evaluation: EvalReport
    decision: GateDecision
    cost: CostAndReturn | None = None


class CardFacts(Contract):
    """What a card is written from.

    ``base_source`` without folders of this machine; ``license`` of the base, None where its files
    do not say; ``evidence`` None where the checkpoint is known without its run.
    """

    base_source: str
    base_sha256: str
    license: str | None = None
    plan: ConversionPlan
    checkpoint_sha256: str | None = None
    evidence: CardEvidence | None = None


def render_card(facts: CardFacts, form: Form) -> str:
    """Markdown with Hugging Face's metadata at its head; a pure function of its arguments.

    Args:
        form: what lies in the folder beside it: the checkpoint with its own code, or the stock or
            the GGUF form of it.
    """
    from huggingface_hub import ModelCardData  # late: a cached run starts without it

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
        "## What each layer became",
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
    """The hub's own name of a model from there, and the source as it is from elsewhere."""
    return source.removeprefix("hf:").partition("@")[0] if source.startswith("hf:") else source


def _opening(facts: CardFacts) -> str:
    sentence = f"In {base_name(facts.base_source)}, {plan_sentence(facts.plan)}."
    if facts.evidence is None:
        return f"{sentence} **It was not judged**: no evaluation is known here."
    if facts.evidence.decision.accepted:
        return f"{sentence} **Accepted** by its gate."
    return f"{sentence} **Rejected by its gate: not for use.**"


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
    """``0-3, 7``."""
    runs = [
        [layer for _, layer in run]
        for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _evidence(evidence: CardEvidence | None) -> str:
    if evidence is None:
        return "None: this folder was not exported from a run, whose records have the evaluation."
    told = (
        f"Base and candidate were measured in the same run ({evidence.run_id}) on the same items, "
        f"on {evidence.evaluation.device}; in parentheses 95 % intervals, and the fastest and "
        "slowest repeat of timings."
    )
    parts = [told, metrics_markdown(evidence.evaluation)]
    if evidence.cost:
        parts.append(return_sentence(evidence.cost))
    return "\n\n".join([*parts, "### Gate", gate_markdown(evidence.decision)])


def _license(name: str | None) -> str:
    if name is None:
        return (
            "The license of the base is unknown: its files do not say it. It governs these weights "
            "all the same; look it up before you use or pass them on."
        )
    return f"That of the base, `{name}`, as its own files say. It governs these weights too."


def _digests(facts: CardFacts) -> str:
    rows = [
        ("checkpoint", facts.checkpoint_sha256),
        ("base", facts.base_sha256),
        ("plan", identity(facts.plan)),
    ]
    return markdown_table(("What", "sha256"), ((what, f"`{sha}`") for what, sha in rows if sha))
