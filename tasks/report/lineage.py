"""Where everything came from: digests of inputs and results, and how long each step took."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.report.bundle import ReportBundle, RunBundle, SurveyBundle
from layerwright.tasks.report.formats import count, data_size
from layerwright.tasks.report.requalification_bundle import RequalificationBundle
from layerwright.tasks.steps import steps as declared_steps


@dataclass(frozen=True)
class StepTime:
    """``width`` is the share of the longest step."""

    name: str
    seconds: float | None
    cached: bool
    width: float


def steps(run: RunBundle | RequalificationBundle) -> list[StepTime]:
    names = dict.fromkeys([*declared_steps(), *run.seconds, *run.cache_hits])
    longest = max(run.seconds.values(), default=0.0) or 1.0
    return [
        StepTime(name, seconds, name in run.cache_hits, round(100 * (seconds or 0.0) / longest, 1))
        for name in names
        if (seconds := run.seconds.get(name)) is not None or name in run.cache_hits
    ]


@dataclass(frozen=True)
class Digest:
    what: str
    source: str
    size: str
    sha256: str


def digests(bundle: ReportBundle) -> list[Digest]:
    """Of everything that a convert run read and made."""
    made = _inputs(bundle)
    for number, repair in enumerate(bundle.repairs, 1):
        made.append(_plan(f"Plan rejected in round {number}", repair.plan))
    made.append(_plan("Plan", bundle.plan))
    if bundle.regularization:
        model = bundle.regularization.model
        made.append(
            Digest("Base trained for removal", model.uri, data_size(model.bytes), model.sha256)
        )
    converted = bundle.converted
    made.append(
        Digest("Converted checkpoint", converted.uri, data_size(converted.bytes), converted.sha256)
    )
    if bundle.finetune and bundle.finetune.checkpoint.sha256 != converted.sha256:
        tuned = bundle.finetune.checkpoint
        made.append(Digest("Tuned checkpoint", tuned.uri, data_size(tuned.bytes), tuned.sha256))
    return made


def requalification_digests(bundle: RequalificationBundle) -> list[Digest]:
    """Of the arms that were measured."""
    model, report = bundle.model, bundle.evaluation
    name = f"{bundle.registered_name}, version {bundle.version}"
    made = [
        Digest("Base model", model.source, data_size(model.bytes), model.sha256),
        Digest("Version", name, "", report.candidate_sha256),
    ]
    if report.champion and (other := report.champion.checkpoint):
        where = f"{bundle.registered_name}, version {report.champion.version}"
        made.append(Digest("Champion", where, data_size(other.bytes), other.sha256))
    return made


def survey_digests(bundle: SurveyBundle) -> list[Digest]:
    """Of everything that a survey read, and of its plans."""
    plans = (_plan(f"Plan: {name}", one.plan) for name, one in bundle.plans.items())
    figures = f"{len(bundle.plans)} plans on {bundle.comparison.device}"
    return [
        *_inputs(bundle),
        *plans,
        Digest("Measurements", figures, "", identity(bundle.comparison)),
    ]


def _inputs(bundle: RunBundle) -> list[Digest]:
    size, model = data_size, bundle.model
    made = [Digest("Base model", model.source, size(model.bytes), model.sha256)]
    for name, text in bundle.texts.items():
        extent = f"{size(text.bytes)}, {text.documents:,} documents"
        made.append(Digest(f"Text: {name}", text.source, extent, text.sha256))
    profile = bundle.profile
    made.append(Digest("Profile", f"{profile.tokens:,} tokens", "", identity(profile)))
    if costs := bundle.costs:
        lengths = ", ".join(f"{at.context_tokens:,}" for at in costs.contexts)
        where = f"{lengths} tokens on {costs.timed_on['device']}"
        made.append(Digest("Cost table", where, "", costs.sha256))
    return made


def _plan(what: str, plan: ConversionPlan) -> Digest:
    about = f"selector {plan.selector}, for {plan.context_tokens:,} tokens"
    return Digest(what, about, "", identity(plan))


def parameters_text(bundle: RunBundle) -> str:
    model = bundle.model
    size = f"{model.layers} layers, {count(model.parameters)} parameters"
    return f"{model.family}, {size}, {model.dtype}"
