"""Where everything came from: digests of inputs and results, and how long each step took."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.contracts import identity
from tasks.recipe import STEPS
from tasks.report.bundle import ReportBundle
from tasks.report.formats import count, data_size


@dataclass(frozen=True)
class Step:
    """``width`` is the share of the longest step."""

    name: str
    seconds: float | None
    cached: bool
    width: float


def steps(bundle: ReportBundle) -> list[Step]:
    names = dict.fromkeys([*STEPS, *bundle.seconds, *bundle.cache_hits])
    longest = max(bundle.seconds.values(), default=0.0) or 1.0
    return [
        Step(name, seconds, name in bundle.cache_hits, round(100 * (seconds or 0.0) / longest, 1))
        for name in names
        if (seconds := bundle.seconds.get(name)) is not None or name in bundle.cache_hits
    ]


@dataclass(frozen=True)
class Digest:
    what: str
    source: str
    size: str
    sha256: str


def digests(bundle: ReportBundle) -> list[Digest]:
    size, model = data_size, bundle.model
    made = [Digest("Base model", model.source, size(model.bytes), model.sha256)]
    for name, text in bundle.texts.items():
        extent = f"{size(text.bytes)}, {text.documents:,} documents"
        made.append(Digest(f"Text: {name}", text.source, extent, text.sha256))
    plan = f"selector {bundle.plan.selector}, for {bundle.plan.context_tokens:,} tokens"
    made += [
        Digest("Profile", f"{bundle.profile.tokens:,} tokens", "", identity(bundle.profile)),
        Digest("Plan", plan, "", identity(bundle.plan)),
        Digest(
            "Converted checkpoint",
            bundle.converted.uri,
            size(bundle.converted.bytes),
            bundle.converted.sha256,
        ),
    ]
    if bundle.finetune and bundle.finetune.checkpoint.sha256 != bundle.converted.sha256:
        tuned = bundle.finetune.checkpoint
        made.append(Digest("Tuned checkpoint", tuned.uri, size(tuned.bytes), tuned.sha256))
    return made


def parameters_text(bundle: ReportBundle) -> str:
    model = bundle.model
    size = f"{model.layers} layers, {count(model.parameters)} parameters"
    return f"{model.family}, {size}, {model.dtype}"
