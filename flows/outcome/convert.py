"""What a convert run leaves behind: summary, files in its folder, Prefect artifacts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from layerwright.flows.outcome.model_cards import card_facts
from layerwright.flows.session.environment import versions
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.items import read_items
from layerwright.tasks.contracts.plan import ConversionPlan, PassTime, RepairRound
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import (
    LINEAGE,
    CheckpointRef,
    ModelRef,
    TextRef,
    TreeRef,
)
from layerwright.tasks.contracts.registration import Registration
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.convert.plan_file import write_plan
from layerwright.tasks.orchestration.place import Run
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.drift import layer_drifts
from layerwright.tasks.report.model_card import CardEvidence, render_card
from layerwright.tasks.report.recall import recall_cells
from layerwright.tasks.report.regressions import regressions
from layerwright.tasks.report.summary import gate_markdown, metrics_markdown, plan_markdown
from layerwright.tasks.returns.crossover import crossovers
from layerwright.tasks.returns.money import cost_and_return
from layerwright.tasks.strategies.specs import assignments_of, specs_of


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

    def cost(self, run: Run) -> CostAndReturn | None:
        """In money, where the recipe gives a price."""
        if self.recipe.price is None:
            return None
        told = {
            "profile": self.profile,
            "measure_costs": self.costs,
            "regularize": self.regularization,
            "finetune": self.healing,
            "evaluate": self.report,
        }
        return cost_and_return(
            self.report.measurements,
            self.recipe.price,
            self.report.device,
            spent=run.seconds,
            recorded={step: result.seconds for step, result in told.items() if result},
            cached=run.cache_hits,
            compute=self.recipe.compute,
        )

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
            cost=self.cost(run),
            seconds=run.seconds,
            cache_hits=run.cache_hits,
            environment=versions() | {"device": self.report.device},
            recall=recall_cells(items),
            drift=layer_drifts(items),
            regressions=regressions(self.report, items),
        )

    def card(self, run: Run) -> str:
        """The model card of the candidate, as it lies in the store."""
        place = f"trees/{self.candidate.sha256}/{LINEAGE}"
        lineage = run.place.open_store().read(place)
        assert lineage is not None, "convert wrote it"
        evidence = CardEvidence(
            run_id=self.run_id,
            evaluation=self.report,
            decision=self.decision,
            cost=self.cost(run),
        )
        facts = card_facts(json.loads(lineage), self.plan, self.candidate.sha256, evidence)
        return render_card(facts, "transformers")

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
            crossovers=crossovers(self.report.measurements),
            cost=self.cost(run),
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
