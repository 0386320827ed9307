"""Check the gate's thresholds with MLflow's own validation as well."""

from __future__ import annotations

from layerwright.tasks.contracts.gate import Check, GateDecision


def refused_by_mlflow(decision: GateDecision) -> str:
    """Pass the decision's thresholds to ``mlflow.validate_evaluation_results``.

    Each check of severity ``fail`` becomes one metric, named after metric and rule, with the judged
    figure (value or bound) and the rule's limit. MLflow refuses a metric without a figure. Waived
    checks, and rules against a champion that does not exist, are left out.

    Returns:
        MLflow's message; empty if it accepts.
    """
    from mlflow import validate_evaluation_results
    from mlflow.models import EvaluationResult, MetricThreshold
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    judged = [
        check
        for check in decision.checks
        if check.severity == "fail" and check.waiver is None and not _has_no_champion(check)
    ]
    thresholds = {
        _name(check): MetricThreshold(threshold=check.limit, greater_is_better=check.is_floor)
        for check in judged
    }
    # from limit and margin, because the gate rounds a figure at its limit to be inside
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


def _has_no_champion(check: Check) -> bool:
    return check.passed and check.margin is None
