"""What a convert run leaves behind: summary, files in its folder, Prefect artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.environment import versions
from flows.runs import RunFolder
from tasks.contracts import (
    CheckpointRef,
    ConversionPlan,
    EvalReport,
    ModelProfile,
    ModelRef,
    PassTime,
    Registration,
    RepairRound,
    RunSummary,
    TextRef,
    TreeRef,
)
from tasks.convert.plan_file import write_plan
from tasks.cost_contracts import CostTable
from tasks.gate_contracts import GateDecision
from tasks.items import read_items
from tasks.node import Run
from tasks.recipe import Recipe
from tasks.report.bundle import ReportBundle
from tasks.report.recall import recall_cells
from tasks.report.regressions import regressions
from tasks.report.summary import gate_markdown, metrics_markdown, plan_markdown
from tasks.strategies.specs import assignments_of, specs_of
from tasks.training_contracts import FinetuneReport, RegularizationReport


@dataclass
class Outcome:
    """Everything that the steps of one run returned."""

    run_id: str
    recipe: Recipe
    model: ModelRef
    texts: dict[str, TextRef]
    profile: ModelProfile
    plan: ConversionPlan
    converted: CheckpointRef
    healing: FinetuneReport | None
    report: EvalReport
    decision: GateDecision
    repairs: tuple[RepairRound, ...] = ()
    registered: Registration | None = None
    regularization: RegularizationReport | None = None
    costs: CostTable | None = None

    @property
    def candidate(self) -> CheckpointRef:
        return self.healing.checkpoint if self.healing else self.converted

    @property
    def stopped(self) -> tuple[str, ...]:
        """Why repair went no further, where it was asked for and did not help."""
        return tuple(f"no repair: {r.stopped}" for r in self.repairs if r.stopped)

    @property
    def predicted_times(self) -> dict[int, PassTime]:
        """What the cost table says of the plan, edited or not, at each of its lengths."""
        if self.costs is None:
            return {}
        specs = specs_of(assignments_of(self.plan.items), self.costs.base_specs)
        times = {at.context_tokens: at.of_model(specs) for at in self.costs.contexts}
        return {tokens: time for tokens, time in times.items() if time is not None}

    def bundle(self, run: Run) -> ReportBundle:
        """What the report page is made from."""
        record = RunFolder(Path(run.place.home), self.run_id).record()
        kept = self.report.items
        items = read_items(run.place.open_store().open_tree(kept.sha256)) if kept else ()
        return ReportBundle(
            run_id=self.run_id,
            recipe_name=self.recipe.name,
            recipe_yaml=record.recipe_text,
            started_at=record.started_at,
            finished_at=self.decision.decided_at,
            model=self.model,
            texts=self.texts,
            profile=self.profile,
            costs=self.costs,
            predicted_times=self.predicted_times,
            plan=self.plan,
            regularization=self.regularization,
            converted=self.converted,
            finetune=self.healing,
            evaluation=self.report,
            gate=self.decision,
            repairs=self.repairs,
            registration=self.registered,
            seconds=run.seconds,
            cache_hits=run.cache_hits,
            environment=versions() | {"device": self.report.device},
            recall=recall_cells(items),
            regressions=regressions(self.report, items),
        )

    def summary(self, run: Run, page_uri: str) -> RunSummary:
        tree = {name: getattr(self.candidate, name) for name in TreeRef.model_fields}
        return RunSummary(
            run_id=self.run_id,
            decision="accepted" if self.decision.accepted else "rejected",
            registered=self.registered,
            checkpoint=TreeRef(**tree),
            plan=self.plan.summary(),
            metrics={arm: self.report.by_arm(arm) for arm in self.report.arms},
            seconds={step: round(spent, 2) for step, spent in run.seconds.items()},
            cache_hits=run.cache_hits,
            report=page_uri,
            failed_checks=self.decision.failed(),
            repairs=self.repairs,
        )


def keep_outcome(outcome: Outcome, run: Run, folder: Path, page_uri: str) -> RunSummary:
    """Write the run's files and its Prefect artifacts; the summary last."""
    summary = outcome.summary(run, page_uri)
    record = RunFolder(Path(run.place.home), outcome.run_id)
    write_plan(outcome.plan, folder / "plan.yaml")
    for number, repair in enumerate(outcome.repairs, 1):
        write_plan(repair.plan, folder / f"plan-rejected-{number}.yaml")
    record.write("profile.json", outcome.profile.model_dump_json(indent=1))
    for name, report in (
        ("costs", outcome.costs),
        ("regularization", outcome.regularization),
        ("finetune", outcome.healing),
    ):
        if report:
            record.write(f"{name}.json", report.model_dump_json(indent=1))
    record.write("evaluation.json", outcome.report.model_dump_json(indent=1))
    record.write("decision.json", outcome.decision.model_dump_json(indent=1))
    create_markdown_artifact(plan_markdown(outcome.plan, outcome.profile), key="plan")
    create_markdown_artifact(metrics_markdown(outcome.report), key="metrics")
    create_markdown_artifact(gate_markdown(outcome.decision), key="gate")
    create_link_artifact(page_uri, key="report", link_text=f"Report of {outcome.run_id}")
    record.write("summary.json", summary.model_dump_json(indent=1))
    reason = "; ".join((*summary.failed_checks, *outcome.stopped))
    record.finish(summary.decision, reason)
    return summary
