"""Write the results of a convert run: summary, files in its folder, Prefect artifacts."""

import json
from dataclasses import dataclass

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from layerwright.flows.outcome.model_cards import card_facts
from layerwright.flows.session.inputs import items_of
from layerwright.flows.session.session import Session, versions
from layerwright.tasks.contracts.checkpoint import ServedForm
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan, PassTime, RepairRound
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.contracts.references import (
    LINEAGE,
    CheckpointRef,
    ModelRef,
    TextRef,
    TreeRef,
)
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.convert.plan_file import write_plan
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.register.evidence import Evidence
from layerwright.tasks.report.bundle import ReportBundle, report_bundle
from layerwright.tasks.report.model_card import CardEvidence, render_card
from layerwright.tasks.report.summary import gate_markdown, metrics_markdown, plan_markdown
from layerwright.tasks.report.task import write_report
from layerwright.tasks.returns.money import cost_and_return, crossovers
from layerwright.tasks.strategies.specs import assignments_of, specs_of


@dataclass
class Outcome:
    """Everything that the steps of one run returned."""

    session: Session
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
    served: ServedForm | None = None

    @property
    def candidate(self) -> CheckpointRef:
        return self.healing.checkpoint if self.healing else self.converted

    @property
    def recipe(self) -> Recipe:
        return self.session.recipe

    @property
    def run_id(self) -> str:
        return self.session.run_id

    @property
    def stopped(self) -> tuple[str, ...]:
        """The reason why repair stopped, for each round that did not help."""
        return tuple(f"no repair: {r.stopped}" for r in self.repairs if r.stopped)

    @property
    def predicted_times(self) -> dict[int, PassTime]:
        """The plan's times, predicted from the cost table at each of the table's lengths."""
        if self.costs is None:
            return {}
        specs = specs_of(assignments_of(self.plan.items), self.costs.base_specs)
        times = {at.context_tokens: at.of_model(specs) for at in self.costs.contexts}
        return {tokens: time for tokens, time in times.items() if time is not None}

    @property
    def cost(self) -> CostAndReturn | None:
        """The cost of the conversion in money, if the recipe gives a price."""
        if self.recipe.price is None:
            return None
        run = self.session.run
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

    def write_page(self) -> str:
        """Write the report page into the run's folder; returns its address."""
        path = self.session.folder.path / "report.html"
        return write_report(self._bundle(), str(path), run=self.session.run).uri

    def evidence(self) -> Evidence:
        """The evidence for the registry. It also writes the model card into the run's folder."""
        folder = self.session.folder
        return Evidence(
            run_id=self.run_id,
            candidate=self.candidate,
            plan=self.plan,
            report=self.report,
            decision=self.decision,
            page=str(folder.path / "report.html"),
            card=str(folder.write("README.md", self._card())),
            cost=self.cost,
            served=self.served,
        )

    def _bundle(self) -> ReportBundle:
        record, run = self.session.folder.record(), self.session.run
        return report_bundle(
            items_of(self.session, self.report),
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
            cost=self.cost,
            seconds=run.seconds,
            cache_hits=run.cache_hits,
            environment=versions() | {"device": self.report.device},
        )

    def _card(self) -> str:
        """The model card of the candidate, from its lineage in the store."""
        key = f"trees/{self.candidate.sha256}/{LINEAGE}"
        lineage = self.session.open_store().read(key)
        assert lineage is not None, "convert wrote it"
        evidence = CardEvidence(
            run_id=self.run_id, evaluation=self.report, decision=self.decision, cost=self.cost
        )
        facts = card_facts(json.loads(lineage), self.plan, self.candidate.sha256, evidence)
        return render_card(facts, "transformers")

    def summary(self, page_uri: str) -> RunSummary:
        tree = {name: getattr(self.candidate, name) for name in TreeRef.model_fields}
        return RunSummary(
            run_id=self.run_id,
            decision="accepted" if self.decision.accepted else "rejected",
            registered=self.registered,
            checkpoint=TreeRef(**tree),
            plan=self.plan.summary(),
            metrics={arm: self.report.by_arm(arm) for arm in self.report.arms},
            seconds=self.session.seconds,
            cache_hits=self.session.run.cache_hits,
            report=page_uri,
            failed_checks=self.decision.failed(),
            repairs=self.repairs,
            crossovers=crossovers(self.report.measurements),
            cost=self.cost,
        )


def keep_outcome(outcome: Outcome, page_uri: str) -> RunSummary:
    """Write the run's files and its Prefect artifacts; the summary is written last."""
    summary, record = outcome.summary(page_uri), outcome.session.folder
    write_plan(outcome.plan, record.path / "plan.yaml")
    for number, repair in enumerate(outcome.repairs, 1):
        write_plan(repair.plan, record.path / f"plan-rejected-{number}.yaml")
    files = {
        "profile": outcome.profile,
        "costs": outcome.costs,
        "regularization": outcome.regularization,
        "finetune": outcome.healing,
        "evaluation": outcome.report,
        "decision": outcome.decision,
    }
    for name, report in files.items():
        if report:
            record.write(f"{name}.json", report.model_dump_json(indent=1))
    create_markdown_artifact(plan_markdown(outcome.plan, outcome.profile), key="plan")
    create_markdown_artifact(metrics_markdown(outcome.report), key="metrics")
    create_markdown_artifact(gate_markdown(outcome.decision), key="gate")
    create_link_artifact(page_uri, key="report", link_text=f"Report of {outcome.run_id}")
    record.write("summary.json", summary.model_dump_json(indent=1))
    reason = "; ".join((*summary.failed_checks, *outcome.stopped))
    record.finish(summary.decision, reason)
    return summary
