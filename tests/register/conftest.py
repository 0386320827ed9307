"""A registry on SQLite, and a small accepted checkpoint in a store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from register.case import Case, accepted, evaluation

from tasks.contracts import CheckpointRef, ConversionPlan, PlanItem, identity
from tasks.store import LocalStore
from tasks.tracking import connect


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make, made once."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    with connect(f"sqlite:///{path}") as client:
        client.search_experiments()
    return path


@pytest.fixture
def make_case(tmp_path: Path, empty_database: Path) -> Callable[[str], Case]:
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    store = LocalStore(tmp_path / "store")
    page = tmp_path / "report.html"
    page.write_text("<h1>report</h1>")

    def make(weights: str = "weights") -> Case:
        folder = tmp_path / "checkpoint"
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
        candidate = CheckpointRef(
            **tree.model_dump(), base_sha256="b" * 64, plan_sha256=identity(plan)
        )
        return Case(
            store=store,
            uri=f"sqlite:///{tmp_path}/mlflow.db",
            page=page,
            candidate=candidate,
            plan=plan,
            report=evaluation(candidate),
            decision=accepted(candidate),
        )

    return make


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    return make_case()
