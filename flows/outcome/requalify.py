"""Write the results of a requalification: page, files, MLflow tags and figures, events."""

from dataclasses import dataclass

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.events import emit_event

from layerwright.flows.session.session import Session, versions
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.contracts.requalification import Alarm, Requalification, TrendPoint
from layerwright.tasks.register.requalification import (
    RegisteredVersion,
    point_of,
    record_requalification,
    trend_of,
)
from layerwright.tasks.report.bundle import RequalificationBundle
from layerwright.tasks.report.summary import gate_markdown
from layerwright.tasks.report.task import write_requalification
from layerwright.tasks.tracking import connect


@dataclass
class RequalificationOutcome:
    """Everything that the steps of one requalification returned."""

    session: Session
    registered: RegisteredVersion
    base: ModelRef
    report: EvalReport
    decision: GateDecision
    alarms: tuple[Alarm, ...]

    def bundle(self, trend: tuple[TrendPoint, ...]) -> RequalificationBundle:
        """The input of the page."""
        session, record = self.session, self.session.folder.record()
        return RequalificationBundle(
            run_id=session.run_id,
            recipe_name=session.recipe.name,
            recipe_yaml=record.recipe_text,
            started_at=record.started_at,
            finished_at=self.decision.decided_at,
            registered_name=self.registered.name,
            version=self.registered.version,
            model=self.base,
            evaluation=self.report,
            gate=self.decision,
            watch=session.recipe.watch,
            alarms=self.alarms,
            trend=trend,
            seconds=session.run.seconds,
            cache_hits=session.run.cache_hits,
            environment=versions() | {"device": self.report.device},
        )

    def result(
        self, trend: tuple[TrendPoint, ...], mlflow_run: str, page_uri: str
    ) -> Requalification:
        return Requalification(
            run_id=self.session.run_id,
            model=self.registered.name,
            version=self.registered.version,
            decision="accepted" if self.decision.accepted else "rejected",
            failed_checks=self.decision.failed(),
            alarms=self.alarms,
            metrics={arm: self.report.by_arm(arm) for arm in self.report.arms},
            trend=trend,
            seconds=self.session.seconds,
            cache_hits=self.session.run.cache_hits,
            mlflow_run=mlflow_run,
            report=page_uri,
        )


def keep_requalification(outcome: RequalificationOutcome) -> Requalification:
    """Write the page, record the decision on the version, raise the alarms, write the files."""
    session, version = outcome.session, outcome.registered.record
    report, decision, alarms = outcome.report, outcome.decision, outcome.alarms
    path = session.folder.path / "report.html"
    with connect(session.tracking_uri) as client:
        point = point_of(report, decision, session.run_id, alarms)
        trend = (*trend_of(client, version), point)
        page = write_requalification(outcome.bundle(trend), str(path), run=session.run)
        kept = record_requalification(
            client, version, report, decision, session.run_id, alarms, path
        )
    for alarm in alarms:
        _raise_alarm(alarm, outcome)
    result = outcome.result(trend, kept, page.uri)
    folder = session.folder
    folder.write("evaluation.json", report.model_dump_json(indent=1))
    folder.write("decision.json", decision.model_dump_json(indent=1))
    create_markdown_artifact(gate_markdown(decision), key="gate")
    create_link_artifact(page.uri, key="report", link_text=f"Report of {session.run_id}")
    folder.write("requalification.json", result.model_dump_json(indent=1))
    left = (f"{alarm.metric} left its band: {alarm.reason}" for alarm in alarms)
    folder.finish(result.decision, "; ".join((*result.failed_checks, *left)))
    return result


def _raise_alarm(alarm: Alarm, outcome: RequalificationOutcome) -> None:
    name, version = outcome.registered.name, outcome.registered.version
    emit_event(
        "layerwright.left-band",
        resource={
            "prefect.resource.id": f"layerwright.model.{name}",
            "prefect.resource.name": name,
            "layerwright.version": version,
        },
        payload={
            "version": version,
            "run_id": outcome.session.run_id,
            **alarm.model_dump(mode="json"),
        },
    )
