"""The record and results of each run, as files in its folder ``runs/<run id>/``."""

import logging
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from layerwright.tasks.components import NAMES_ONLY
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.comparison import SideBySideRun
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.requalification import Requalification
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.contracts.survey import SurveyResult
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.recipe import Recipe

Result = TypeVar("Result", bound=Contract)
RunResult = RunSummary | SurveyResult | Requalification | SideBySideRun
RESULTS: dict[str, type[RunResult]] = {
    "survey.json": SurveyResult,
    "requalification.json": Requalification,
    "comparison.json": SideBySideRun,
    "summary.json": RunSummary,
}
logger = logging.getLogger("layerwright")


class RunLine(Contract):
    """One run in the list of runs."""

    run_id: str
    state: str = "running"  # running, accepted, rejected, failed
    started_at: str
    finished_at: str | None = None
    reason: str = ""


class RunRecord(RunLine):
    """The inputs of a run, from which it can be repeated, and its state."""

    recipe_path: str
    recipe_text: str
    recipe: Recipe
    flow: str = "convert"
    assignments: tuple[str, ...] = ()  # of --set; `recipe` contains them already
    plan: ConversionPlan | None = None
    pins: dict[str, str] = {}  # identity of each source, for the cache keys


class RunList(Contract):
    """The runs under a home folder, oldest first; printed without their inputs."""

    runs: tuple[RunLine, ...]


class RunFolder:
    """``runs/<run id>/``: run.json, and the results of the run."""

    def __init__(self, home: Home, run_id: str) -> None:
        self.home, self.run_id = home, run_id
        self.path = home.runs / run_id

    @classmethod
    def create(cls, home: Home, recipe: Recipe, path: Path, **inputs: Any) -> Self:
        """The folder of a new run; ``inputs`` are further fields of its record."""
        now = datetime.now(UTC)
        folder = cls(home, f"{recipe.name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
        record = RunRecord(
            run_id=folder.run_id,
            recipe_path=str(path),
            recipe_text=path.read_text(encoding="utf-8"),
            recipe=recipe,
            started_at=now.isoformat(timespec="seconds"),
            **inputs,
        )
        folder.write("run.json", record.model_dump_json(indent=1))
        return folder

    @classmethod
    def find(cls, home: Home, run_id: str) -> Self:
        """An existing run; a unique beginning of its id is enough, ``latest`` is the newest.
        InputError if no run matches, or several do.
        """
        known = sorted(p.parent.name for p in home.runs.glob("*/run.json"))
        if run_id == "latest" and (records := cls.all(home)):
            return cls(home, records[-1].run_id)
        fitting = [k for k in known if k == run_id] or [k for k in known if k.startswith(run_id)]
        if len(fitting) != 1:
            raise InputError(
                f"{'no run' if not fitting else 'several runs'} named {run_id!r} under {home}",
                remedy="`layerwright runs` lists them",
            )
        return cls(home, fitting[0])

    @classmethod
    def all(cls, home: Home) -> list[RunRecord]:
        """Every run under a home, oldest first; runs of incompatible versions are left out."""
        records = []
        for path in home.runs.glob("*/run.json"):
            try:
                records.append(cls(home, path.parent.name).record())
            except InputError as error:
                logger.warning("%s is left out: %s", path.parent.name, error.message)
        return sorted(records, key=lambda record: record.started_at)

    def record(self, *, components: bool = False) -> RunRecord:
        """The content of run.json.

        ``components``: whether the recipe validates into its components, to run it again, or keeps
        their names and options, which imports no room. InputError if another version of Layerwright
        wrote it.
        """
        found = self._read("run.json", RunRecord, None if components else NAMES_ONLY)
        assert found is not None, f"{self.run_id} has no record"
        return found

    def update(self, **changes: Any) -> None:
        record = self.record().model_copy(update=changes)
        self.write("run.json", record.model_dump_json(indent=1))

    def finish(self, state: str, reason: str = "") -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.update(state=state, reason=reason, finished_at=now)

    def write(self, name: str, content: str) -> Path:
        path = self.path / name
        write_atomically(path, content.encode())
        return path

    def summary(self) -> RunSummary | None:
        """The result of a finished convert run."""
        return self._read("summary.json", RunSummary)

    def result(self) -> RunResult | None:
        """The result of a finished run of any flow."""
        for name, kind in RESULTS.items():
            if found := self._read(name, kind):
                return found
        return None

    def _read(
        self, name: str, kind: type[Result], context: dict[str, str] | None = None
    ) -> Result | None:
        """A document of the run's folder, or None if it does not exist."""
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return kind.model_validate_json(path.read_bytes(), context=context)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"another version of Layerwright wrote {name}",
                where=f"{path}: {'.'.join(map(str, first['loc']))}",
                expected="the fields of this version",
                remedy="use the version that wrote it, or run it again from its recipe",
            ) from error
