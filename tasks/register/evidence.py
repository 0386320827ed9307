"""The evidence for a model version, as an MLflow logged model: documents, page and metrics."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.base import Contract, identity
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.store.manifest import MANIFEST
from layerwright.tasks.tracking import experiment_id

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.tracking import MlflowClient

TAG = "layerwright."  # prefix of all tags that Layerwright writes to MLflow


class Evidence(Contract):
    """Everything that a run measured and decided about one checkpoint.

    ``run_id`` names the run in the version's tags. ``page`` and ``card`` are paths of the HTML
    report and the model card; ``cost`` is None without a price.
    """

    run_id: str
    candidate: CheckpointRef
    plan: ConversionPlan
    report: EvalReport
    decision: GateDecision
    page: str | None = None
    card: str | None = None
    cost: CostAndReturn | None = None

    @property
    def sha256(self) -> str:
        """Digest of the evidence without the decision's dates.

        So a new decision on the same measurements gives the same digest, and does not extend a
        version's expiry.
        """
        return identity([self.candidate, self.plan, self.report, self.decision.checks])

    def write(self, folder: Path, tree: Path) -> None:
        """Write all files to ``folder``. ``tree`` is the verified checkpoint."""
        documents: dict[str, Contract] = {
            "plan.json": self.plan,
            "evaluation.json": self.report,
            "gate.json": self.decision,
            "checkpoint.json": self.candidate,
        }
        for name, document in documents.items():
            (folder / name).write_text(document.model_dump_json(indent=1), encoding="utf-8")
        shutil.copyfile(tree / MANIFEST, folder / MANIFEST)
        if self.page is not None:
            shutil.copyfile(self.page, folder / "report.html")
        if self.card is not None:
            shutil.copyfile(self.card, folder / "README.md")
        if self.cost is not None:
            text = self.cost.model_dump_json(indent=1)
            (folder / "cost.json").write_text(text, encoding="utf-8")


def report_figures(report: EvalReport) -> dict[str, float]:
    """The measured values by ``arm/metric``; missing values are left out."""
    return {
        f"{m.arm}/{metric_key(m.metric)}": m.value
        for m in report.measurements
        if m.value is not None
    }


def _cost_figures(cost: CostAndReturn) -> dict[str, float]:
    """The conversion's cost; for each workload, money per million tokens and break-even tokens."""
    figures = {"cost/conversion": cost.conversion}
    for workload in cost.workloads:
        name = metric_key(
            str(Workload(workload.prompt_tokens, workload.new_tokens, workload.batch))
        )
        figures[f"cost/per_million_tokens.{name}/base"] = workload.request.base
        figures[f"cost/per_million_tokens.{name}/candidate"] = workload.request.candidate
        if workload.break_even_tokens is not None:
            figures[f"cost/break_even_tokens.{name}"] = workload.break_even_tokens
    return figures


def metric_key(metric: str) -> str:
    """The metric's name, with characters that MLflow refuses replaced by ``_``."""
    return "".join(c if c.isalnum() or c in "_-. /:" else "_" for c in metric)


def log_evidence(client: MlflowClient, evidence: Evidence, tree: Path) -> LoggedModel:
    """Find or create the logged model of this evidence, complete it, and set its status to READY.

    Args:
        tree: the verified checkpoint.
    """
    experiment = experiment_id(client)
    marker = {f"{TAG}evidence_sha256": evidence.sha256}
    same = f"tags.`{TAG}evidence_sha256` = '{evidence.sha256}'"
    runs = client.search_runs([experiment], same, max_results=1)
    run = runs[0] if runs else client.create_run(experiment, tags=marker, run_name=evidence.run_id)
    models = client.search_logged_models([experiment], same, max_results=1)
    model = (
        models[0]
        if models
        else client.create_logged_model(
            experiment,
            name="evidence",
            source_run_id=run.info.run_id,
            tags=marker,
            model_type="layerwright-evidence",
        )
    )
    _complete_artifacts(client, evidence, model, tree)
    _complete_metrics(client, evidence, model, run.info.run_id)
    if model.status.value != "READY":
        model = client.finalize_logged_model(model.model_id, "READY")
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id)
    return model


def _complete_artifacts(
    client: MlflowClient, evidence: Evidence, model: LoggedModel, tree: Path
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        evidence.write(Path(scratch), tree)
        logged = {info.path for info in client.list_logged_model_artifacts(model.model_id)}
        if not {file.name for file in Path(scratch).iterdir()} <= logged:
            client.log_model_artifacts(model.model_id, scratch)


def _complete_metrics(
    client: MlflowClient, evidence: Evidence, model: LoggedModel, run_id: str
) -> None:
    from mlflow.entities import Metric

    logged = {metric.key: metric.value for metric in model.metrics or ()}
    now_ms = int(time.time() * 1000)
    costs = _cost_figures(evidence.cost) if evidence.cost else {}
    missing = [
        Metric(key, value, now_ms, step=0, model_id=model.model_id)
        for key, value in (report_figures(evidence.report) | costs).items()
        if logged.get(key) != value
    ]
    if missing:
        client.log_batch(run_id, metrics=missing)
