"""The section on training: regularization, stages, losses, and quality per training token."""

import math

from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.report.formats import number
from layerwright.tasks.report.lines import CurvePoint, LinePanel, curve_panel
from layerwright.tasks.report.profile_figures import Table


def regularization(report: RegularizationReport | None) -> dict[str, object]:
    """The contents of the section that describe the training before removal."""
    return {
        "regularized": report and regularization_sentence(report),
        "penalties": report and penalty_table(report),
    }


def fine_tuning(report: FinetuneReport | None) -> dict[str, object]:
    """The contents of the section on fine-tuning; empty if nothing was trained."""
    if report is None or not report.steps:
        return {}
    return {
        "quality_gain": quality_gain(report),
        "quality_curves": quality_panels(report),
        "validation": validation_table(report),
        "loss_curves": loss_panels(report),
    }


def quality_panels(report: FinetuneReport) -> list[LinePanel]:
    """Quality on held-out rows over training tokens; empty without validation."""
    if not report.validation:
        return []
    ends, kept = _stage_ends(report), _kept_steps(report)
    panels = []
    for title, help, read in (
        ("Validation NLL", "held-out rows, per token", lambda p: p.nll),
        ("Validation perplexity", "exp of the NLL", lambda p: _perplexity(p.nll)),
        ("Validation KL to the base", "held-out rows, per token; 0 is equal", lambda p: p.kl),
    ):
        points = [
            CurvePoint(p.tokens, p.step, p.stage, value, kept.get(p.stage) == p.step)
            for p in report.validation
            if (value := read(p)) is not None
        ]
        if not points:  # there is no KL if the base does not run
            continue
        unit = "" if "perplexity" in title else "nats"
        panels.append(curve_panel(title, f"{help}; ring: the kept state", points, unit, ends))
    return panels


def loss_panels(report: FinetuneReport) -> list[LinePanel]:
    """The training losses over tokens: the weighted sum, and each objective."""
    if not report.points:
        return []
    ends = _stage_ends(report)
    units = {name: unit for stage in report.stages for name, unit in stage.units.items()}
    names = dict.fromkeys(name for point in report.points for name in point.values)
    help = "weighted sum of the stage's objectives; not comparable between stages"
    sums = [CurvePoint(p.tokens, p.step, p.stage, p.loss) for p in report.points]
    panels = [curve_panel("Training loss", help, sums, "", ends)]
    for name in names:
        points = [
            CurvePoint(p.tokens, p.step, p.stage, p.values[name])
            for p in report.points
            if name in p.values
        ]
        unit = units.get(name, "")
        panels.append(curve_panel(f"Objective {name}", "unweighted", points, unit, ends))
    return panels


def validation_table(report: FinetuneReport) -> Table:
    """The numbers behind the validation curves."""
    return Table(
        ["Step", "Stage", "Tokens", "Seconds", "NLL, nats", "Perplexity", "KL, nats"],
        [
            [
                f"{p.step:,}", str(p.stage + 1), f"{p.tokens:,}", number(p.seconds),
                number(p.nll), number(_perplexity(p.nll)),
                "" if p.kl is None else number(p.kl),
            ]
            for p in report.validation
        ],
    )  # fmt: skip


def quality_gain(report: FinetuneReport) -> str | None:
    """A sentence on the change of the validation NLL; None without validation before and after."""
    kept = _kept_steps(report)
    kept_points = [p for p in report.validation if kept.get(p.stage) == p.step]
    if not kept_points or len(report.validation) < 2:
        return None
    first, final = report.validation[0], kept_points[-1]
    gain = first.nll - final.nll
    change = (
        f"On held-out rows the NLL changed from {number(first.nll)} to {number(final.nll)} nats "
        f"per token (perplexity from {number(_perplexity(first.nll))} to "
        f"{number(_perplexity(final.nll))}) after {final.tokens:,} training tokens"
    )
    if gain <= 0:
        return f"{change}: it did not improve."
    half = next(p for p in report.validation if first.nll - p.nll >= gain / 2)
    return f"{change}; half of the gain was reached after {half.tokens:,} tokens."


def regularization_sentence(report: RegularizationReport) -> str:
    """One or two sentences on the training before removal."""
    layers = ", ".join(map(str, report.layers))
    text = (
        f"Before layers {layers} were removed, the base was trained on {report.tokens:,} tokens to "
        f"make these layers contribute less (penalty {number(report.weight)})."
    )
    if report.nll_before is None or report.nll_after is None:
        return text
    return (
        f"{text} Without these layers, the NLL on held-out rows changed from "
        f"{number(report.nll_before)} to {number(report.nll_after)} nats per token."
    )


def penalty_table(report: RegularizationReport) -> Table | None:
    """The penalties that were tried; None if there was only one."""
    if not report.trials:
        return None
    return Table(
        ["Penalty", "NLL without the layers, nats"],
        [[number(trial.weight), number(trial.nll)] for trial in report.trials],
    )


def _kept_steps(report: FinetuneReport) -> dict[int, int]:
    """For each stage that trained, the step whose state it passed on."""
    kept = {i: stage.best_step for i, stage in enumerate(report.stages) if stage.steps}
    return kept or {p.stage: report.best_step for p in report.validation}


def _stage_ends(report: FinetuneReport) -> list[int]:
    """Tokens read at the end of each stage that trained."""
    ends: dict[int, int] = {}
    reached = [(p.stage, p.tokens) for p in report.points]
    for stage, tokens in reached + [(p.stage, p.tokens) for p in report.validation]:
        ends[stage] = max(tokens, ends.get(stage, 0))
    return [ends[stage] for stage in sorted(ends)]


def _perplexity(nll: float) -> float:
    return math.exp(min(nll, 700.0))  # exp overflows above
