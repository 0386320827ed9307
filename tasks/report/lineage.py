"""The lineage section: digests of inputs and results, and the time of each step."""

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.report.bundle import (
    PageBundle,
    ReportBundle,
    RequalificationBundle,
    RunBundle,
    SurveyBundle,
)
from layerwright.tasks.report.formats import count, data_size
from layerwright.tasks.steps import steps as declared_steps


def steps(run: PageBundle) -> list[tuple[str, float | None, bool, float]]:
    """(step, seconds, cached, width in percent of the longest step's) of each step."""
    names = dict.fromkeys([*declared_steps(), *run.seconds, *run.cache_hits])
    longest = max(run.seconds.values(), default=0.0) or 1.0
    return [
        (name, seconds, name in run.cache_hits, round(100 * (seconds or 0.0) / longest, 1))
        for name in names
        if (seconds := run.seconds.get(name)) is not None or name in run.cache_hits
    ]


# what, source, size, sha256
Digest = tuple[str, str, str, str]


def digests(bundle: ReportBundle) -> list[Digest]:
    """The digests of all inputs and results of a convert run."""
    table = _inputs(bundle)
    for number, repair in enumerate(bundle.repairs, 1):
        table.append(_plan(f"Plan rejected in round {number}", repair.plan))
    table.append(_plan("Plan", bundle.plan))
    if bundle.regularization:
        model = bundle.regularization.model
        table.append(("Regularized base", model.uri, data_size(model.bytes), model.sha256))
    made = {"Converted checkpoint": bundle.converted}
    if bundle.checkpoint.sha256 != bundle.converted.sha256:
        made["Fine-tuned checkpoint"] = bundle.checkpoint
    return table + [(k, c.uri, data_size(c.bytes), c.sha256) for k, c in made.items()]


def requalification_digests(bundle: RequalificationBundle) -> list[Digest]:
    """The digests of the measured arms."""
    model, report = bundle.model, bundle.evaluation
    name = f"{bundle.registered_name}, version {bundle.version}"
    table = [
        ("Base model", model.source, data_size(model.bytes), model.sha256),
        ("Version", name, "", report.candidate_sha256),
    ]
    if report.champion and (other := report.champion.checkpoint):
        where = f"{bundle.registered_name}, version {report.champion.version}"
        table.append(("Champion", where, data_size(other.bytes), other.sha256))
    return table


def survey_digests(bundle: SurveyBundle) -> list[Digest]:
    """The digests of a survey's inputs, plans and measurements."""
    plans = (_plan(f"Plan: {name}", entry.plan) for name, entry in bundle.plans.items())
    figures = f"{len(bundle.plans)} plans on {bundle.comparison.device}"
    measured = ("Measurements", figures, "", identity(bundle.comparison))
    return [*_inputs(bundle), *plans, measured]


def _inputs(bundle: RunBundle) -> list[Digest]:
    size, model = data_size, bundle.model
    table = [("Base model", model.source, size(model.bytes), model.sha256)]
    for name, text in bundle.texts.items():
        extent = f"{size(text.bytes)}, {text.documents:,} documents"
        table.append((f"Text: {name}", text.source, extent, text.sha256))
    profile = bundle.profile
    table.append(("Profile", f"{profile.tokens:,} tokens", "", identity(profile)))
    if costs := bundle.costs:
        lengths = ", ".join(f"{at.context_tokens:,}" for at in costs.contexts)
        source = f"{lengths} tokens on {costs.timed_on['device']}"
        table.append(("Cost table", source, "", costs.sha256))
    return table


def _plan(what: str, plan: ConversionPlan) -> Digest:
    source = f"selector {plan.selector}, for {plan.context_tokens:,} tokens"
    return what, source, "", identity(plan)


def parameters_text(bundle: RunBundle) -> str:
    model = bundle.model
    size = f"{model.layers} layers, {count(model.parameters)} parameters"
    return f"{model.family}, {size}, {model.dtype}"
