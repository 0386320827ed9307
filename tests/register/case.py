"""One registration: everything that `register_model` is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import EvalReport, Measurement
from layerwright.tasks.contracts.gate import Check, GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.evidence import Evidence
from layerwright.tasks.register.registry import register_model
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.tracking import connect

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NAME = "tiny"
OPTIONS = RegisterOptions(model_name=NAME)


@dataclass(frozen=True)
class Case:
    """Everything that `register_model` is given."""

    store: LocalStore
    uri: str
    page: Path
    candidate: CheckpointRef
    plan: ConversionPlan
    report: EvalReport
    decision: GateDecision
    card: Path | None = None
    cost: CostAndReturn | None = None

    def register(
        self, now: datetime = NOW, run_id: str = "run-1", options: RegisterOptions = OPTIONS
    ) -> Registration:
        evidence = Evidence(
            run_id=run_id,
            candidate=self.candidate,
            plan=self.plan,
            report=self.report,
            decision=self.decision,
            page=str(self.page),
            card=str(self.card) if self.card else None,
            cost=self.cost,
        )
        return register_model(evidence, options, tracking_uri=self.uri, store=self.store, now=now)

    def but(self, **changes: Any) -> "Case":
        """The same case with other contracts, or with fields of theirs changed by a dict."""
        return replace(
            self,
            **{
                name: getattr(self, name).model_copy(update=change)
                if isinstance(change, dict)
                else change
                for name, change in changes.items()
            },
        )

    @property
    def model_dir(self) -> Path:
        return self.store.root / "trees" / self.candidate.sha256

    def client(self):
        return connect(self.uri)

    def versions(self) -> list:
        with self.client() as client:
            return sorted(
                client.search_model_versions(f"name = '{NAME}'"), key=lambda v: int(v.version)
            )

    def alias(self) -> str:
        with self.client() as client:
            return str(client.get_model_version_by_alias(NAME, "challenger").version)


def build_case(root: Path, weights: str = "weights", now: datetime = NOW) -> Case:
    """A small accepted checkpoint in the store of a home folder, not registered yet."""
    store = LocalStore(root / "store")
    page = root / "report.html"
    page.write_text("<h1>report</h1>")
    folder = root / "checkpoint"
    (folder / "nested").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "nested" / "model.safetensors").write_text(weights)
    tree = store.put_tree(folder)
    plan = ConversionPlan(
        model_sha256="b" * 64,
        layers=3,
        context_tokens=8192,
        selector="milp",
        items=(
            PlanItem(start=0, stop=1, strategy="keep"),
            PlanItem(start=1, stop=3, strategy="streaming", params={"window": 64}),
        ),
    )
    candidate = CheckpointRef(**tree.model_dump(), base_sha256="b" * 64, plan_sha256=identity(plan))
    return Case(
        store=store,
        uri=f"sqlite:///{root}/mlflow.db",
        page=page,
        candidate=candidate,
        plan=plan,
        report=evaluation(candidate),
        decision=accepted(candidate, now),
    )


def crown(case: Case, version: str) -> None:
    """Put the champion's alias by hand."""
    with case.client() as client:
        client.set_registered_model_alias(NAME, "champion", version)


def evaluation(candidate: CheckpointRef, perplexity: float = 20.5) -> EvalReport:
    values = {
        ("base", "perplexity.wiki"): 20.0,
        ("candidate", "perplexity.wiki"): perplexity,
        ("candidate", "agreement@8k"): 0.9,
        ("candidate", "lost"): None,
    }
    return EvalReport(
        base_sha256=candidate.base_sha256,
        candidate_sha256=candidate.sha256,
        device="cpu",
        measurements=tuple(
            Measurement(metric=metric, arm=arm, value=value, unit="", higher_is_better=False)
            for (arm, metric), value in values.items()
        ),
    )


def accepted(candidate: CheckpointRef, at: datetime = NOW) -> GateDecision:
    check = Check(
        metric="perplexity.wiki",
        rule="ratio to the base <= 1.05",
        compare="ratio",
        value=1.025,
        limit=1.05,
        is_floor=False,
        margin=0.025,
        passed=True,
        severity="fail",
    )
    return GateDecision(
        accepted=True,
        checks=(check,),
        candidate_sha256=candidate.sha256,
        decided_at=at.isoformat(timespec="seconds"),
        expires_at=(at + timedelta(days=30)).isoformat(timespec="seconds"),
    )


@contextmanager
def cut_off(monkeypatch: pytest.MonkeyPatch, *, after: bool) -> Iterator[None]:
    """What the block does ends as by a kill, when an alias is moved or just after it was."""
    from mlflow.tracking import MlflowClient

    call = MlflowClient.set_registered_model_alias

    def cut(*arguments, **options):
        if after:
            call(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", cut)
        with pytest.raises(KeyboardInterrupt):
            yield
