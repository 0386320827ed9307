"""A survey's result, from the same bundle as its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerwright.tasks.contracts import survey
from layerwright.tasks.contracts.costs import planned_ratio, planned_time
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.report.bundle import SurveyBundle, total_of
from layerwright.tasks.report.survey_plans import stability_rows
from layerwright.tasks.report.survey_predictions import predictions
from layerwright.tasks.returns.money import crossovers, workload_costs


def survey_result(
    bundle: SurveyBundle, page_uri: str, second_files: Mapping[str, Path]
) -> survey.SurveyResult:
    """The result of a survey; ``second_files``: the plans chosen from a second text, by name."""
    shares = {name: one.budget for name, one in bundle.plans.items() if one.budget is not None}
    return survey.SurveyResult(
        run_id=bundle.run_id,
        selectors={
            name: survey.SurveyRow(**_figures(bundle, name))
            for name in bundle.plans
            if name not in shares
        },
        frontier=tuple(
            survey.FrontierPoint(**{"name": name, bundle.budget: share, **_figures(bundle, name)})
            for name, share in shares.items()
        ),
        stability=_stability(bundle, second_files),
        seconds={step: round(spent, 2) for step, spent in bundle.seconds.items()},
        cache_hits=bundle.cache_hits,
        predictions=tuple(
            survey.Prediction(
                damage=one.part, metric=one.metric, plans=len(one.plans), spearman=one.spearman
            )
            for one in predictions(bundle)
        ),
        report=page_uri,
        missing=bundle.missing,
    )


def _figures(bundle: SurveyBundle, name: str) -> dict[str, Any]:
    """The fields of a plan's `SurveyRow`."""
    made = bundle.plans[name]
    found = {m.metric: m for m in bundle.comparison.plans[name] if m.arm == "candidate"}
    for family in ("perplexity", "kl_mean"):
        of_texts = [metric for metric in found if metric.startswith(f"{family}.")]
        if len(of_texts) == 1:
            found[family] = found[of_texts[0]]
    kl = [m.value for metric, m in found.items() if metric.startswith("kl_mean.")]
    known_kl = [value for value in kl if value is not None]
    return {
        "plan": made.plan.summary(),
        "selector": made.plan.selector,
        "metrics": {metric: m.value for metric, m in found.items()},
        "intervals": {
            metric: (m.low, m.high)
            for metric, m in found.items()
            if m.low is not None and m.high is not None
        },
        "kl_nats": max(known_kl) if kl and len(known_kl) == len(kl) else None,
        "context_tokens": made.plan.context_tokens,
        "predicted_kv_bytes": total_of(made.plan, "predicted_kv_bytes"),
        "predicted_kv_bytes_ratio": bundle.kv_ratio(name),
        "predicted_language_nats": total_of(made.plan, "predicted_language_nats"),
        "predicted_recall_nats": total_of(made.plan, "predicted_recall_nats"),
        **_predicted_times(made.plan),
        **_measured_speed(bundle, name),
        "plan_file": made.file,
        "command": made.command,
    }


def _predicted_times(plan: ConversionPlan) -> dict[str, float]:
    """Predicted times of the whole model, and their ratios to the base; empty without costs."""
    time, ratio = planned_time(plan), planned_ratio(plan)
    if time is None or ratio is None:
        return {}
    return {
        "predicted_prefill_seconds": time.prefill_seconds,
        "predicted_prefill_seconds_ratio": ratio.prefill,
        "predicted_decode_seconds_per_token": time.decode_seconds_per_token,
        "predicted_decode_seconds_ratio": ratio.decode,
    }


def _measured_speed(bundle: SurveyBundle, name: str) -> dict[str, Any]:
    """The crossover lengths, and the money per million tokens; empty without measured speeds."""
    measured, price = bundle.comparison.plans[name], bundle.price
    found = crossovers(measured)
    if not found:
        return {}
    if not price:
        return {"crossovers": found}
    costs = workload_costs(measured, price)
    return {"crossovers": found, "costs": costs, "currency": price.currency}


def _stability(
    bundle: SurveyBundle, second_files: Mapping[str, Path]
) -> survey.SurveyStability | None:
    found = bundle.stability
    if found is None:
        return None
    plans = {}
    for row in stability_rows(bundle):
        damage: dict[str, dict[str, dict[str, survey.Estimate]]] = {on: {} for on in found.held_out}
        for held_out, text, _, figures in row.cells:
            damage[held_out][text] = {
                family: survey.Estimate(value=m.value, low=m.low, high=m.high)
                for family, m in figures.items()
            }
        plans[row.name] = survey.SecondPlan(
            **row.overlap.model_dump(),
            second_plan=found.plans[row.name].summary(),
            second_plan_file=str(second_files[row.name]),
            damage=damage,
        )
    return survey.SurveyStability(texts=found.texts, held_out=found.held_out, plans=plans)
