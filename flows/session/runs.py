"""The record of each run, as files in its own folder under ``runs/`` in the home."""

from __future__ import annotations

import json
import logging
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.recipe import Recipe

logger = logging.getLogger("layerwright")


class RunRecord(Contract):
    """What a run was asked to do, enough to do it again, and how it stands."""

    run_id: str
    recipe_path: str
    recipe_text: str
    recipe: Recipe
    flow: str = "convert"
    assignments: tuple[str, ...] = ()  # of --set, which the recipe above has in it
    plan: ConversionPlan | None = None
    started_at: str
    finished_at: str | None = None
    state: str = "running"  # running, accepted, rejected, failed
    reason: str = ""


class RunFolder:
    """``runs/<run id>/``: run.json, and what the run leaves behind."""

    def __init__(self, home: Path, run_id: str) -> None:
        self.run_id = run_id
        self.path = home / "runs" / run_id

    @classmethod
    def create(
        cls,
        home: Path,
        recipe: Recipe,
        recipe_path: Path,
        plan: ConversionPlan | None,
        assignments: tuple[str, ...] = (),
        flow: str = "convert",
    ) -> RunFolder:
        now = datetime.now(UTC)
        folder = cls(home, f"{recipe.name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
        record = RunRecord(
            run_id=folder.run_id,
            recipe_path=str(recipe_path),
            recipe_text=Path(recipe_path).read_text(encoding="utf-8"),
            recipe=recipe,
            flow=flow,
            assignments=assignments,
            plan=plan,
            started_at=now.isoformat(timespec="seconds"),
        )
        folder.write("run.json", record.model_dump_json(indent=1))
        return folder

    @classmethod
    def find(cls, home: Path, run_id: str) -> RunFolder:
        """An existing run; a unique beginning of its id is enough, ``latest`` is the newest.

        Raises:
            InputError: no such run, or several.
        """
        known = sorted(p.parent.name for p in (home / "runs").glob("*/run.json"))
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
    def all(cls, home: Path) -> list[RunRecord]:
        """Every run under a home, oldest first; without those of versions with other recipes."""
        records = []
        for path in (home / "runs").glob("*/run.json"):
            try:
                records.append(cls(home, path.parent.name).record())
            except InputError as error:
                logger.warning("%s is passed over: %s", path.parent.name, error.message)
        return sorted(records, key=lambda record: record.started_at)

    def record(self) -> RunRecord:
        """What stands in run.json.

        Raises:
            InputError: another version of Layerwright wrote it, whose recipes have other fields.
        """
        path = self.path / "run.json"
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                "the run's record is of another version of Layerwright",
                where=f"{path}: {'.'.join(map(str, first['loc']))}",
                expected="the fields that recipes have in this version",
                remedy="use the version that wrote it, or start the run again from its recipe",
            ) from error

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

    def summary(self) -> dict[str, Any] | None:
        """What a finished convert run printed."""
        return self._json("summary.json")

    def survey(self) -> dict[str, Any] | None:
        """What a finished survey printed."""
        return self._json("survey.json")

    def requalification(self) -> dict[str, Any] | None:
        """What a finished requalification printed."""
        return self._json("requalification.json")

    def comparison(self) -> dict[str, Any] | None:
        """What a finished comparison printed."""
        return self._json("comparison.json")

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return json.loads(path.read_bytes()) if path.is_file() else None
