"""x"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.gate import Check, GateDecision
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.errors import LayerwrightError, StepError
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.decisions import decision_tags
from layerwright.tasks.register.evidence import TAG, Evidence, log_evidence
from layerwright.tasks.store.base import Store
from layerwright.tasks.tracking import connect, refuse_unreachable

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


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


FIRST_DECISION = (f"{TAG}decided_at", f"{TAG}expires_at", f"{TAG}run_id")


class RegistrationError(LayerwrightError):
    """The checkpoint may not be registered, and was not."""


def register_model(
    evidence: Evidence,
    options: RegisterOptions,
    *,
    tracking_uri: str,
    store: Store,
    now: datetime | None = None,
) -> Registration:
    """Register a checkpoint under ``options.model_name`` and point ``options.alias`` at it.

    A version is identified by its manifest, its plan and its address in the store. An existing
    version is verified, and its missing parts are added. New measurements extend its expiry; a new
    decision on the same measurements does not.

    Args:
        tracking_uri: an MLflow server, or ``sqlite:///FILE``, which keeps evidence beside the file.
        now: the current time, against which the decision's expiry is checked; tests set it.

    Raises:
        RegistrationError: the decision rejects, has expired, or is about another checkpoint.
        IntegrityError: the store does not have the checkpoint's bytes.
        InputError: MLflow is a server, but only this machine can read the store.
        StepError: MLflow cannot be reached or reports an error.
    """
    refuse_unreachable(tracking_uri, store.uri)
    _refuse_unless_accepted(evidence, now or datetime.now(UTC))
    candidate = evidence.candidate
    tree = store.open_tree(candidate.sha256)
    source = store.tree_uri(candidate.sha256)
    name = options.model_name
    with connect(tracking_uri) as client:
        found = _versions(client, name, source, evidence)
        model = log_evidence(client, evidence, tree)
        tags = _tags(evidence, source, model)
        version = found[0] if found else _create(client, name, source, evidence, model, tags)
        if version.status != "READY":
            raise StepError(f"version {version.version} of {name} is {version.status}, not READY")
        _complete_tags(client, version, tags)
        _point(client, name, options.alias, str(version.version))
    return Registration(
        name=name, version=str(version.version), alias=options.alias, found=bool(found)
    )


def _refuse_unless_accepted(evidence: Evidence, now: datetime) -> None:
    candidate, decision = evidence.candidate, evidence.decision
    if not decision.accepted:
        failed = ", ".join(check.metric for check in decision.rejecting)
        raise RegistrationError(f"the gate rejected this checkpoint: {failed}")
    if refusal := refused_by_mlflow(decision):
        raise RegistrationError(f"accepted, but MLflow's own validation refuses: {refusal}")
    if now >= datetime.fromisoformat(decision.expires_at):
        raise RegistrationError(f"the gate's decision expired at {decision.expires_at}")
    about = {
        "the gate's decision": (decision.candidate_sha256, candidate.sha256),
        "the evaluation": (evidence.report.candidate_sha256, candidate.sha256),
        "the evaluation's base": (evidence.report.base_sha256, candidate.base_sha256),
        "the plan's base": (evidence.plan.model_sha256, candidate.base_sha256),
        "the plan": (identity(evidence.plan), candidate.plan_sha256),
    }
    for what, (given, expected) in about.items():
        if given != expected:
            raise RegistrationError(f"{what} is about {given}, not about {expected}")


def _tags(evidence: Evidence, source: str, model: LoggedModel) -> dict[str, str]:
    """The version's tags. ``evidence_sha256`` is last: once set, the others are up to date."""
    candidate, decision = evidence.candidate, evidence.decision
    tags = {
        "checkpoint_uri": source,
        "manifest_sha256": candidate.sha256,
        "checkpoint_bytes": str(candidate.bytes),
        "plan_sha256": candidate.plan_sha256,
        "base_sha256": candidate.base_sha256,
        **decision_tags(decision, evidence.report),
        **_cost_tags(evidence.cost),
        "run_id": evidence.run_id,
        "model_id": model.model_id,
        "evidence_sha256": evidence.sha256,
    }
    return {f"{TAG}{key}": value for key, value in tags.items()}


def _cost_tags(cost: CostAndReturn | None) -> dict[str, str]:
    """The price and the conversion's cost; empty if the recipe gives no price."""
    if cost is None:
        return {}
    currency = cost.price.currency
    return {
        "price_device_hour": f"{cost.price.device_hour:g} {currency}",
        "conversion_cost": f"{cost.conversion:.4g} {currency}",
    }


def _versions(
    client: MlflowClient, name: str, source: str, evidence: Evidence
) -> list[ModelVersion]:
    """Versions of this checkpoint, oldest first; versions without tags count as well."""
    plan = evidence.candidate.plan_sha256
    same = [
        version
        for version in client.search_model_versions(f"source_path = '{source}'")
        if version.name == name and version.tags.get(f"{TAG}plan_sha256", plan) == plan
    ]
    return sorted(same, key=lambda version: int(version.version))


def _create(
    client: MlflowClient,
    name: str,
    source: str,
    evidence: Evidence,
    model: LoggedModel,
    tags: dict[str, str],
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    strategies = list(evidence.plan.summary().values())
    changed = len(strategies) - strategies.count("keep")
    made = client.create_model_version(
        name,
        source,
        run_id=model.source_run_id,
        model_id=model.model_id,
        tags=tags,
        description=f"{changed} of {len(strategies)} layers converted; evidence in the logged "
        f"model {model.model_id}",
    )
    # MLflow has no lock: if two runs registered the checkpoint at once, keep the first version
    first = _versions(client, name, source, evidence)[0]
    if first.version != made.version:
        client.delete_model_version(name, str(made.version))
    return first


def _complete_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Set the tags that are missing or out of date.

    The dates of the first decision stay if the evidence is the same: judging old measurements
    again must not extend their validity.
    """
    marker = f"{TAG}evidence_sha256"
    kept = FIRST_DECISION if version.tags.get(marker) == tags[marker] else ()
    for key, value in tags.items():
        current = version.tags.get(key)
        if current is None or (current != value and key not in kept):
            client.set_model_version_tag(version.name, str(version.version), key, value)


def _point(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Point the alias at ``version``, and tag that version with the one that it replaced."""
    from mlflow.exceptions import MlflowException

    before = client.get_registered_model(name).aliases.get(alias)
    if before is not None and str(before) == version:
        return
    if before is not None:
        client.set_model_version_tag(name, version, f"{TAG}replaced_version", str(before))
    try:
        client.set_registered_model_alias(name, alias, version)
    except MlflowException:
        # two runs set a new alias at once: the database refuses the second insert, so update it
        if client.get_registered_model(name).aliases.get(alias) is None:
            raise
        client.set_registered_model_alias(name, alias, version)


def register_candidate(
    evidence: Evidence, options: RegisterOptions, tracking_uri: str, ctx: Context
) -> Registration:
    """Register a checkpoint with its evidence, without loading the weights (`register_model`)."""
    return register_model(evidence, options, tracking_uri=tracking_uri, store=ctx.store)
