"""The gate's thresholds once more, by MLflow's own rules."""

from __future__ import annotations

from layerwright.tasks.contracts.gate import Check, GateDecision


def refused_by_mlflow(decision: GateDecision) -> str:
    """Run the decision's thresholds through ``mlflow.validate_evaluation_results``.

    Each check of severity ``fail`` that is not waived is one metric, named after metric and rule,
    with the figure that was judged (value or bound) and the rule's limit. A figure that is missing
    is left out, which MLflow refuses too; what MLflow has no word for (intervals, families,
    waivers) is in the figure already. A rule against a champion that does not exist is no
    threshold.

    Returns:
        MLflow's message; empty where it accepts.
    """
    from mlflow import validate_evaluation_results
    from mlflow.models import EvaluationResult, MetricThreshold
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    judged = [
        check
        for check in decision.checks
        if check.severity == "fail" and check.waiver is None and not _vacuous(check)
    ]
    thresholds = {
        _name(check): MetricThreshold(threshold=check.limit, greater_is_better=check.is_floor)
        for check in judged
    }
    # the figure as the gate rounded it: at the limit is inside
    figures = {
        _name(check): check.limit + (check.margin if check.is_floor else -check.margin)
        for check in judged
        if check.margin is not None
    }
    try:
        validate_evaluation_results(thresholds, EvaluationResult(figures, artifacts={}))
    except ModelValidationFailedException as error:
        return str(error)
    return ""


def _name(check: Check) -> str:
    return f"{check.metric}: {check.rule}"


def _vacuous(check: Check) -> bool:
    return check.passed and check.margin is None
