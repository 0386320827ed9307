"""Register an accepted checkpoint as a version in MLflow's model registry.

The weights are neither loaded nor copied: the version's source is the tree in the store that is
served, the checkpoint's stock form if it has one. The evidence is an MLflow logged model, which the
version's tag ``layerwright.model_id`` names. Each part is created only if it does not exist. So
repeating a registration changes nothing, and repeating an interrupted one completes it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.errors import LayerwrightError, StepError
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.decisions import decision_tags
from layerwright.tasks.register.evidence import TAG, Evidence, log_evidence
from layerwright.tasks.register.versions import set_tag, tag
from layerwright.tasks.store.base import Store
from layerwright.tasks.tracking import connect, refuse_unreachable

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


FIRST_DECISION = ("decided_at", "expires_at", "run_id")


class RegistrationError(LayerwrightError):
    """The checkpoint may not be registered, and was not."""


def refused_by_mlflow(decision: GateDecision) -> str:
    """The message of MLflow's own validation of the decision's thresholds; empty if it accepts.

    Each check of severity ``fail`` becomes one metric, named after metric and rule, with the judged
    figure (value or bound) and the rule's limit. MLflow refuses a metric without a figure. Waived
    checks, and rules against a champion that does not exist, are left out.
    """
    from mlflow import validate_evaluation_results
    from mlflow.models import EvaluationResult, MetricThreshold
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    figures, thresholds = {}, {}
    for check in decision.checks:
        without_champion = check.passed and check.margin is None
        if check.severity != "fail" or check.waiver or without_champion:
            continue
        name, floor = f"{check.metric}: {check.rule}", check.is_floor
        thresholds[name] = MetricThreshold(threshold=check.limit, greater_is_better=floor)
        if check.margin is not None:
            # from limit and margin, because the gate rounds a figure at its limit to be inside
            figures[name] = check.limit + (check.margin if floor else -check.margin)
    try:
        validate_evaluation_results(thresholds, EvaluationResult(figures, artifacts={}))
    except ModelValidationFailedException as error:
        return str(error)
    return ""


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
        now: the current time, against which the decision's expiry is checked; tests set it.

    Raises:
        RegistrationError: the decision rejects, has expired, or is about another checkpoint.
        IntegrityError: the store does not have the checkpoint's bytes.
        InputError: MLflow is a server, but only this machine can read the store.
    """
    refuse_unreachable(tracking_uri, store.uri)
    _refuse_unless_accepted(evidence, now or datetime.now(UTC))
    name, alias, candidate = options.model_name, options.alias, evidence.candidate
    tree, served = store.open_tree(candidate.sha256), evidence.served or candidate
    source = store.tree_uri(served.sha256)
    if served.sha256 != candidate.sha256:
        store.open_tree(served.sha256)  # verifies it
    with connect(tracking_uri) as client:
        found = _versions(client, name, source, evidence)
        model = log_evidence(client, evidence, tree)
        tags = _tags(evidence, store.tree_uri(candidate.sha256), model)
        version = found[0] if found else _create(client, name, source, evidence, model, tags)
        number = str(version.version)
        if version.status != "READY":
            raise StepError(f"version {number} of {name} is {version.status}, not READY")
        _complete_tags(client, version, tags)
        _point(client, name, alias, number)
    kind = evidence.served.model_type if evidence.served else None
    return Registration(name=name, version=number, alias=alias, model_type=kind, found=bool(found))


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


def _tags(evidence: Evidence, uri: str, model: LoggedModel) -> dict[str, str]:
    """The version's tags. ``evidence_sha256`` is last: once set, the others are up to date."""
    candidate, cost = evidence.candidate, evidence.cost
    costs, served = {}, {}
    if evidence.served:
        served["served_sha256"] = evidence.served.sha256
        served["served_model_type"] = evidence.served.model_type
    if cost:
        currency = cost.price.currency
        costs["price_device_hour"] = f"{cost.price.device_hour:g} {currency}"
        costs["conversion_cost"] = f"{cost.conversion:.4g} {currency}"
    return {
        "checkpoint_uri": uri,
        "manifest_sha256": candidate.sha256,
        "checkpoint_bytes": str(candidate.bytes),
        "plan_sha256": candidate.plan_sha256,
        "base_sha256": candidate.base_sha256,
        **decision_tags(evidence.decision, evidence.report),
        **costs,
        **served,
        "run_id": evidence.run_id,
        "model_id": model.model_id,
        "evidence_sha256": evidence.sha256,
    }


def _versions(client: MlflowClient, name: str, source: str, evidence: Evidence) -> list[Any]:
    """Versions of this checkpoint, oldest first; versions without tags count as well."""
    plans = (None, evidence.candidate.plan_sha256)
    found = client.search_model_versions(f"source_path = '{source}'")
    same = [v for v in found if v.name == name and tag(v, "plan_sha256") in plans]
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
        tags={f"{TAG}{key}": value for key, value in tags.items()},
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
    marker = "evidence_sha256"
    kept = FIRST_DECISION if tag(version, marker) == tags[marker] else ()
    for key, value in tags.items():
        current = tag(version, key)
        if current is None or (current != value and key not in kept):
            set_tag(client, version, key, value)


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
