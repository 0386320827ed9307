"""The evidence for a model version, as an MLflow logged model: documents, page and metrics."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.base import Contract, identity
from layerwright.tasks.contracts.checkpoint import ServedForm
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
    """Everything that a run measured and decided about one checkpoint."""

    run_id: str
    candidate: CheckpointRef
    plan: ConversionPlan
    report: EvalReport
    decision: GateDecision
    page: str | None = None  # the path of the HTML report
    card: str | None = None  # the path of the model card
    cost: CostAndReturn | None = None  # None without a price
    served: ServedForm | None = None  # None: the candidate as it is

    @property
    def sha256(self) -> str:
        """Digest without the decision's dates: judging the same measurements again changes nothing.

        So it does not extend a version's expiry either.
        """
        return identity([self.candidate, self.plan, self.report, self.decision.checks])

    def write(self, folder: Path, tree: Path) -> None:
        """Write all files to ``folder``. ``tree`` is the verified checkpoint."""
        documents: dict[str, Contract | None] = {
            "plan.json": self.plan,
            "evaluation.json": self.report,
            "gate.json": self.decision,
            "checkpoint.json": self.candidate,
            "cost.json": self.cost,
        }
        for name, document in documents.items():
            if document is not None:
                (folder / name).write_text(document.model_dump_json(indent=1), encoding="utf-8")
        files = {MANIFEST: tree / MANIFEST, "report.html": self.page, "README.md": self.card}
        for name, path in files.items():
            if path is not None:
                shutil.copyfile(path, folder / name)


def report_figures(report: EvalReport) -> dict[str, float]:
    """The measured values by ``arm/metric``; missing values are left out."""
    measured = [(m.arm, metric_key(m.metric), m.value) for m in report.measurements]
    return {f"{arm}/{key}": value for arm, key, value in measured if value is not None}


def _cost_figures(cost: CostAndReturn) -> dict[str, float]:
    """The conversion's cost; for each workload, money per million tokens and break-even tokens."""
    figures = {"cost/conversion": cost.conversion}
    for w in cost.workloads:
        name = metric_key(str(Workload(w.prompt_tokens, w.new_tokens, w.batch)))
        figures[f"cost/per_million_tokens.{name}/base"] = w.request.base
        figures[f"cost/per_million_tokens.{name}/candidate"] = w.request.candidate
        if w.break_even_tokens is not None:
            figures[f"cost/break_even_tokens.{name}"] = w.break_even_tokens
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
    model = models[0] if models else None
    if model is None:
        kind, run_id = "layerwright-evidence", run.info.run_id
        model = client.create_logged_model(
            experiment, name="evidence", source_run_id=run_id, tags=marker, model_type=kind
        )
    with tempfile.TemporaryDirectory() as scratch:
        evidence.write(Path(scratch), tree)
        logged = {info.path for info in client.list_logged_model_artifacts(model.model_id)}
        if not {file.name for file in Path(scratch).iterdir()} <= logged:
            client.log_model_artifacts(model.model_id, scratch)
    figures = report_figures(evidence.report)
    if evidence.cost:
        figures |= _cost_figures(evidence.cost)
    known = {metric.key: metric.value for metric in model.metrics or ()}
    missing = {key: value for key, value in figures.items() if known.get(key) != value}
    if missing:
        log_figures(client, run.info.run_id, missing, model_id=model.model_id)
    if model.status.value != "READY":
        model = client.finalize_logged_model(model.model_id, "READY")
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id)
    return model


def log_figures(
    client: MlflowClient, run_id: str, figures: dict[str, float], model_id: str | None = None
) -> None:
    """Log figures to a run, and to a logged model if one is given."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    metrics = [Metric(k, v, now_ms, step=0, model_id=model_id) for k, v in figures.items()]
    client.log_batch(run_id, metrics=metrics)
