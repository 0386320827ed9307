"""Write the results of a survey: its page, its plans as files, its result as JSON."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prefect.artifacts import create_link_artifact

from layerwright.flows.session.preflight import NEEDED_BLOCKS
from layerwright.flows.session.runs import RunRecord
from layerwright.flows.session.session import Session, versions
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.evaluation import PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.contracts.survey import Stability, SurveyResult
from layerwright.tasks.convert.plan_file import write_plan
from layerwright.tasks.home import Home
from layerwright.tasks.report.bundle import SurveyBundle, SurveyPlan
from layerwright.tasks.report.survey_result import survey_result
from layerwright.tasks.report.task import write_survey


@dataclass
class SurveyOutcome:
    """Everything that the steps of one survey returned."""

    session: Session
    model: ModelRef
    texts: dict[str, TextRef]
    profile: ModelProfile
    plans: dict[str, ConversionPlan]
    measured: PlanComparison
    costs: CostTable | None = None
    stability: Stability | None = None

    def bundle(self) -> SurveyBundle:
        """The input of the survey's page."""
        recipe, run, folder = self.session.recipe, self.session.run, self.session.folder
        record, options = folder.record(), recipe.survey
        assert options is not None  # the flow needs the block
        # the share of the base that each point of the frontier was chosen for
        shares = dict(zip(options.points(), options.frontier, strict=True))
        files = [str(folder.path / "plans" / name) for name in file_names(self.plans)]
        return SurveyBundle(
            run_id=self.session.run_id,
            recipe_name=recipe.name,
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
                    command=command(record, file, folder.home),
                    budget=shares.get(name),
                )
                for (name, plan), file in zip(self.plans.items(), files, strict=True)
            },
            comparison=self.measured,
            stability=self.stability,
            price=recipe.price,
            budget=options.frontier_budget,
            missing=tuple(n for n in NEEDED_BLOCKS["convert"] if getattr(recipe, n) is None),
            seconds=run.seconds,
            cache_hits=run.cache_hits,
            environment=versions() | {"device": self.measured.device},
        )


def keep_survey(outcome: SurveyOutcome) -> SurveyResult:
    """Write the page, the plans, the profile and the result; return the result."""
    bundle, folder = outcome.bundle(), outcome.session.folder
    page = write_survey(bundle, str(folder.path / "survey.html"), run=outcome.session.run)
    for made in bundle.plans.values():
        write_plan(made.plan, Path(made.file))
    second = {name: folder.path / "plans" / file for name, file in second_files(bundle).items()}
    if bundle.stability:
        for name, path in second.items():
            write_plan(bundle.stability.plans[name], path)
    folder.write("profile.json", bundle.profile.model_dump_json(indent=1))
    if bundle.costs:
        folder.write("costs.json", bundle.costs.model_dump_json(indent=1))
    run = outcome.session.run
    # the page's own step ended after the bundle was made
    times = bundle.model_copy(update={"seconds": run.seconds, "cache_hits": run.cache_hits})
    result = survey_result(times, page.uri, second)
    create_link_artifact(page.uri, key="survey", link_text=f"Survey {bundle.run_id}")
    folder.write("survey.json", result.model_dump_json(indent=1))
    folder.finish("accepted", "survey")
    return result


def second_files(bundle: SurveyBundle) -> dict[str, str]:
    """A file name for every plan chosen from the second text."""
    found = bundle.stability
    if found is None:
        return {}
    names = [f"{name} from {found.texts[1]}" for name in found.plans]
    files = file_names([*bundle.plans, *names])[len(bundle.plans) :]
    return dict(zip(found.plans, files, strict=True))


def file_names(plans: Iterable[str]) -> list[str]:
    """A different file name for each plan, safe on every file system."""
    made: list[str] = []
    taken: set[str] = set()
    for name in plans:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "plan"
        wanted, count = plain, 1
        while wanted.casefold() in taken:  # some file systems ignore case
            count += 1
            wanted = f"{plain}-{count}"
        taken.add(wanted.casefold())
        made.append(f"{wanted}.yaml")
    return made


def command(record: RunRecord, plan: str, home: Home) -> str:
    """The command that runs a plan with the survey's recipe and changes, from any folder."""
    recipe = Path(record.recipe_path).resolve()
    words = ["layerwright", "convert", str(recipe), "--plan", plan, "--home", str(home)]
    for assignment in record.assignments:
        if not assignment.startswith("survey."):  # a conversion does not read them
            words += ["--set", assignment]
    return shlex.join(words)
