"""Record a requalification of a registered version: new decision tags, and figures over time.

The evidence of the registration does not change. From now on the new decision counts, for
promotion too (tasks/register/decisions.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.requalification import Alarm, TrendPoint
from layerwright.tasks.register.decisions import REQUALIFIED, decision_tags
from layerwright.tasks.register.evidence import TAG, metric_key, report_figures
from layerwright.tasks.register.versions import Address, checkpoint_of, named_version, tag
from layerwright.tasks.tracking import connect, experiment_id, refuse_missing

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

EXPERIMENT = "layerwright-requalification"
SAME_EVIDENCE = f"{REQUALIFIED}evidence_sha256"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version to be measured again."""

    record: ModelVersion  # MLflow's own record of it
    checkpoint: CheckpointRef
    # the candidate's figures when it was registered, by metric as MLflow spells it
    figures: dict[str, float]

    @property
    def name(self) -> str:
        return str(self.record.name)

    @property
    def version(self) -> str:
        return str(self.record.version)

    def figures_of(self, report: EvalReport) -> dict[str, float]:
        """The figures by the names that metrics have in a report."""
        names = {metric_key(m.metric): m.metric for m in report.measurements}
        return {names[key]: value for key, value in self.figures.items() if key in names}


def registered_version(tracking_uri: str, address: str) -> RegisteredVersion:
    """The version at ``NAME@alias`` or ``NAME/version``.

    Raises:
        InputError: no such registry, model, alias or version.
    """
    refuse_missing(tracking_uri)
    with connect(tracking_uri) as client:
        record = named_version(client, Address.parse(address))
        return RegisteredVersion(record, checkpoint_of(record), registered_figures(client, record))


def registered_figures(client: MlflowClient, version: ModelVersion) -> dict[str, float]:
    """The candidate's figures at the version's registration, by ``metric_key``."""
    model_id = tag(version, "model_id")
    if model_id is None:
        return {}
    metrics = client.get_logged_model(model_id).metrics or ()
    return {
        metric.key.removeprefix("candidate/"): metric.value
        for metric in metrics
        if metric.key.startswith("candidate/")
    }


def trend_of(client: MlflowClient, version: ModelVersion) -> tuple[TrendPoint, ...]:
    """All requalifications of a version, oldest first."""
    runs = client.search_runs(
        [experiment_id(client, EXPERIMENT)],
        f"tags.`{TAG}version` = '{version.version}'",
        order_by=["attributes.start_time ASC"],
        max_results=1000,
    )
    return tuple(
        TrendPoint(
            at=run.data.tags[f"{TAG}decided_at"],
            run_id=run.data.tags[f"{TAG}run_id"],
            decision=run.data.tags[f"{TAG}decision"],
            alarms=int(run.data.tags[f"{TAG}alarms"]),
            values={
                key.removeprefix("candidate/"): value
                for key, value in run.data.metrics.items()
                if key.startswith("candidate/")
            },
        )
        for run in runs
        if run.data.tags.get(f"{TAG}model") == version.name and run.info.status == "FINISHED"
    )


def point_of(
    report: EvalReport, decision: GateDecision, run_id: str, alarms: tuple[Alarm, ...]
) -> TrendPoint:
    """This requalification as the next point of the trend."""
    return TrendPoint(
        at=decision.decided_at,
        run_id=run_id,
        decision="accepted" if decision.accepted else "rejected",
        alarms=len(alarms),
        values={metric_key(m): v for m, v in report.by_arm("candidate").items() if v is not None},
    )


def record_requalification(
    client: MlflowClient,
    version: ModelVersion,
    report: EvalReport,
    decision: GateDecision,
    run_id: str,
    alarms: tuple[Alarm, ...],
    page: Path,
) -> str:
    """Record a requalification: an MLflow run with figures and page, then the version's tags.

    Judging the same measurements again does not extend the version's expiry.

    Returns:
        The id of the MLflow run.
    """
    from mlflow.entities import Metric

    tags = {f"{TAG}{name}": value for name, value in decision_tags(decision, report).items()}
    tags |= {
        f"{TAG}model": version.name,
        f"{TAG}version": str(version.version),
        f"{TAG}run_id": run_id,
        f"{TAG}alarms": str(len(alarms)),
    }
    name = f"{version.name}/{version.version} {run_id}"
    run = client.create_run(experiment_id(client, EXPERIMENT), tags=tags, run_name=name)
    now_ms = int(time.time() * 1000)
    figures = report_figures(report).items()
    client.log_batch(run.info.run_id, metrics=[Metric(k, v, now_ms, step=0) for k, v in figures])
    client.log_artifact(run.info.run_id, str(page))
    client.set_terminated(run.info.run_id)
    _tag_version(client, version, report, decision, run_id)
    return run.info.run_id


def _tag_version(
    client: MlflowClient,
    version: ModelVersion,
    report: EvalReport,
    decision: GateDecision,
    run_id: str,
) -> None:
    """Tag the version with the new decision; ``decided_at`` comes last, because it activates it."""
    evidence = identity([report, decision.checks])
    if tag(version, SAME_EVIDENCE) == evidence:
        return
    tags = decision_tags(decision, report) | {"run_id": run_id}
    decided_at = tags.pop("decided_at")
    for key, value in tags.items():
        client.set_model_version_tag(
            version.name, str(version.version), f"{TAG}{REQUALIFIED}{key}", value
        )
    for key, value in ((f"{REQUALIFIED}decided_at", decided_at), (SAME_EVIDENCE, evidence)):
        client.set_model_version_tag(version.name, str(version.version), f"{TAG}{key}", value)
