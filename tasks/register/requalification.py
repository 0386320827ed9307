"""Record a requalification of a registered version: new decision tags, and figures over time.

The evidence of the registration does not change. From now on the new decision counts, for
promotion too (tasks/register/decisions.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.requalification import Alarm, TrendPoint
from layerwright.tasks.register.decisions import REQUALIFIED, decision_tags
from layerwright.tasks.register.evidence import TAG, log_figures, metric_key, report_figures
from layerwright.tasks.register.versions import Address, checkpoint_of, named_version, set_tag, tag
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
    """The version at ``NAME@alias`` or ``NAME/version``; raise InputError if there is none."""
    refuse_missing(tracking_uri)
    with connect(tracking_uri) as client:
        record = named_version(client, Address.parse(address))
        return RegisteredVersion(record, checkpoint_of(record), registered_figures(client, record))


def registered_figures(client: MlflowClient, version: ModelVersion) -> dict[str, float]:
    """The candidate's figures at the version's registration, by ``metric_key``."""
    model_id = tag(version, "model_id")
    metrics = client.get_logged_model(model_id).metrics if model_id else None
    return _of_candidate((metric.key, metric.value) for metric in metrics or ())


def _of_candidate(figures: Iterable[tuple[str, float]]) -> dict[str, float]:
    arm = "candidate/"
    return {key.removeprefix(arm): value for key, value in figures if key.startswith(arm)}


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
            values=_of_candidate(run.data.metrics.items()),
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
    """Make an MLflow run with figures and page, then tag the version; return the run's id.

    Judging the same measurements again does not extend the version's expiry.
    """
    tags = decision_tags(decision, report) | {"run_id": run_id}
    about = {"model": version.name, "version": version.version, "alarms": len(alarms)}
    run = client.create_run(
        experiment_id(client, EXPERIMENT),
        tags={f"{TAG}{name}": str(value) for name, value in (tags | about).items()},
        run_name=f"{version.name}/{version.version} {run_id}",
    )
    log_figures(client, run.info.run_id, report_figures(report))
    client.log_artifact(run.info.run_id, str(page))
    client.set_terminated(run.info.run_id)
    evidence = identity([report, decision.checks])
    if tag(version, SAME_EVIDENCE) != evidence:
        decided_at = tags.pop("decided_at")  # last, because it activates the decision
        for key, value in (tags | {"decided_at": decided_at}).items():
            set_tag(client, version, f"{REQUALIFIED}{key}", value)
        set_tag(client, version, SAME_EVIDENCE, evidence)
    return run.info.run_id
