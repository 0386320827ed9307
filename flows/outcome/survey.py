"""What a survey leaves behind: its page, its plans as files, its result as JSON."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact

from layerwright.flows.session.environment import versions
from layerwright.flows.session.preflight import NEEDED
from layerwright.flows.session.runs import RunFolder, RunRecord
from layerwright.tasks.contracts.costs import CostTable, planned_ratio, planned_time
from layerwright.tasks.contracts.evaluation import PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.contracts.stability import Stability
from layerwright.tasks.convert.plan_file import write_plan
from layerwright.tasks.orchestration.place import Run
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.report.bundle import SurveyBundle, SurveyPlan, total_of
from layerwright.tasks.report.survey_predictions import foreseen
from layerwright.tasks.report.survey_stability import stability_rows
from layerwright.tasks.returns.crossover import crossovers
from layerwright.tasks.returns.money import workload_costs


@dataclass
class SurveyOutcome:
    """Everything that the steps of one survey returned.

    ``budgets``: the share of the base that each point of the frontier was chosen for, by name.
    """

    run_id: str
    recipe: Recipe
    model: ModelRef
    texts: dict[str, TextRef]
    profile: ModelProfile
    plans: dict[str, ConversionPlan]
    budgets: dict[str, float]
    measured: PlanComparison
    costs: CostTable | None = None
    stability: Stability | None = None

    def bundle(self, run: Run) -> SurveyBundle:
        """What the survey's page is made from."""
        home = Path(run.place.home)
        folder = RunFolder(home, self.run_id)
        record = folder.record()
        files = [str(folder.path / "plans" / name) for name in file_names(self.plans)]
        return SurveyBundle(
            run_id=self.run_id,
            recipe_name=self.recipe.name,
            recipe_yaml=record.recipe_text,
            started_at=record.started_at,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            model=self.model,
            texts=self.texts,
            profile=self.profile,
            costs=self.costs,
            plans={
                name: SurveyPlan(
                    plan=plan,
                    file=file,
                    command=command(record, file, home),
                    budget=self.budgets.get(name),
                )
                for (name, plan), file in zip(self.plans.items(), files, strict=True)
            },
            comparison=self.measured,
            stability=self.stability,
            price=self.recipe.price,
            budget=self.recipe.survey.frontier_budget,
            missing=tuple(n for n in NEEDED["convert"] if getattr(self.recipe, n) is None),
            seconds=run.seconds,
            cache_hits=run.cache_hits,
            environment=versions() | {"device": self.measured.device},
        )


def keep_survey(bundle: SurveyBundle, run: Run, page_uri: str) -> dict[str, Any]:
    """Write the plans, the profile and the result, which it returns; then the run is finished."""
    folder = RunFolder(Path(run.place.home), bundle.run_id)
    for one in bundle.plans.values():
        write_plan(one.plan, Path(one.file))
    if bundle.stability:
        for name, file in second_files(bundle).items():
            write_plan(bundle.stability.plans[name], folder.path / "plans" / file)
    folder.write("profile.json", bundle.profile.model_dump_json(indent=1))
    if bundle.costs:
        folder.write("costs.json", bundle.costs.model_dump_json(indent=1))
    rows = {name: survey_row(bundle, name) for name in bundle.plans}
    budgets = {name: one.budget for name, one in bundle.plans.items() if one.budget is not None}
    result = {
        "run_id": bundle.run_id,
        "selectors": {name: row for name, row in rows.items() if name not in budgets},
        "frontier": [
            {bundle.budget: budget, "name": name, **rows[name]} for name, budget in budgets.items()
        ],
        "stability": stability_row(bundle, folder.path / "plans"),
        "seconds": {step: round(spent, 2) for step, spent in run.seconds.items()},
        "cache_hits": list(run.cache_hits),
        "predictions": [
            {
                "damage": one.part,
                "metric": one.metric,
                "plans": len(one.plans),
                "spearman": one.spearman,
            }
            for one in foreseen(bundle)
        ],
        "report": page_uri,
        "missing": list(bundle.missing),
    }
    create_link_artifact(page_uri, key="survey", link_text=f"Survey {bundle.run_id}")
    folder.write("survey.json", json.dumps(result, indent=1))
    folder.finish("accepted", "survey")
    return result


def second_files(bundle: SurveyBundle) -> dict[str, str]:
    """A file name for every plan chosen from the second text, beside those of the first."""
    found = bundle.stability
    if found is None:
        return {}
    names = [f"{name} from {found.texts[1]}" for name in found.plans]
    files = file_names([*bundle.plans, *names])[len(bundle.plans) :]
    return dict(zip(found.plans, files, strict=True))


def stability_row(bundle: SurveyBundle, folder: Path) -> dict[str, Any] | None:
    """Plans chosen from a second text as JSON; None where the survey did not ask for it.

    ``damage``: by text measured on, then by text chosen from.
    """
    found = bundle.stability
    if found is None:
        return None
    plans, files = {}, second_files(bundle)
    for row in stability_rows(bundle):
        damage: dict[str, dict[str, Any]] = {held_out: {} for held_out in found.held_out}
        for held_out, text, _, figures in row.cells:
            damage[held_out][text] = {
                family: {"value": m.value, "low": m.low, "high": m.high}
                for family, m in figures.items()
            }
        plans[row.name] = {
            "second_plan": found.plans[row.name].summary(),
            "second_plan_file": str(folder / files[row.name]),
            **row.overlap.model_dump(),
            "damage": damage,
        }
    return {"texts": list(found.texts), "held_out": list(found.held_out), "plans": plans}


def survey_row(bundle: SurveyBundle, name: str) -> dict[str, Any]:
    """One plan as JSON: what it is, what was predicted, what was measured, and how to run it.

    Metrics over texts stand under their plain name as well where there is one text. ``kl_nats`` is
    the mean KL to the base, the greatest where several texts were measured.
    """
    made = bundle.plans[name]
    found = {m.metric: m for m in bundle.comparison.plans[name] if m.arm == "candidate"}
    for family in ("perplexity", "kl_mean"):
        of_texts = [metric for metric in found if metric.startswith(f"{family}.")]
        if len(of_texts) == 1:
            found[family] = found[of_texts[0]]
    kl = [m.value for metric, m in found.items() if metric.startswith("kl_mean.")]
    return {
        "plan": made.plan.summary(),
        "selector": made.plan.selector,
        "metrics": {metric: m.value for metric, m in found.items()},
        "intervals": {
            metric: [m.low, m.high]
            for metric, m in found.items()
            if m.low is not None and m.high is not None
        },
        "kl_nats": max(kl) if kl and None not in kl else None,
        "context_tokens": made.plan.context_tokens,
        "predicted_kv_bytes": total_of(made.plan, "predicted_kv_bytes"),
        "predicted_kv_bytes_ratio": bundle.kv_ratio(name),
        "predicted_language_nats": total_of(made.plan, "predicted_language_nats"),
        "predicted_recall_nats": total_of(made.plan, "predicted_recall_nats"),
        **predicted_times(made.plan),
        **speed_row(bundle, name),
        "plan_file": made.file,
        "command": made.command,
    }


def speed_row(bundle: SurveyBundle, name: str) -> dict[str, Any]:
    """From which length on the plan is faster, and its money per million tokens with a price.

    A survey converts nothing for good: there is no cost of a conversion, and no break-even.
    """
    measured, price = bundle.comparison.plans[name], bundle.price
    found = [one.model_dump(mode="json") for one in crossovers(measured)]
    if not found:
        return {}
    row: dict[str, Any] = {"crossovers": found}
    if price:
        costs = workload_costs(measured, price)
        row["costs"] = [one.model_dump(mode="json", exclude={"break_even_tokens"}) for one in costs]
        row["currency"] = price.currency
    return row


def predicted_times(plan: ConversionPlan) -> dict[str, float]:
    """Of the whole model at the plan's context, and against the base; nothing without a table."""
    time, ratio = planned_time(plan), planned_ratio(plan)
    if time is None or ratio is None:
        return {}
    return {
        "predicted_prefill_seconds": time.prefill_seconds,
        "predicted_prefill_seconds_ratio": ratio.prefill,
        "predicted_decode_seconds_per_token": time.decode_seconds_per_token,
        "predicted_decode_seconds_ratio": ratio.decode,
    }


def file_names(plans: Iterable[str]) -> list[str]:
    """A file name for each plan, safe everywhere and never twice, whatever people call plans."""
    made: list[str] = []
    taken: set[str] = set()
    for name in plans:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "plan"
        wanted, count = plain, 1
        while wanted.casefold() in taken:  # some file systems tell no cases apart
            count += 1
            wanted = f"{plain}-{count}"
        taken.add(wanted.casefold())
        made.append(f"{wanted}.yaml")
    return made


def command(record: RunRecord, plan: str, home: Path) -> str:
    """The command that runs a plan with the survey's recipe as it was given, from any folder."""
    recipe = Path(record.recipe_path).resolve()
    words = ["layerwright", "convert", str(recipe), "--plan", plan, "--home", str(home)]
    for assignment in record.assignments:
        if not assignment.startswith("survey."):  # nothing to a conversion
            words += ["--set", assignment]
    return shlex.join(words)
