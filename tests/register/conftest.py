"""A registry on SQLite, and a small accepted checkpoint in a store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from register.case import Case, build_case


@pytest.fixture
def make_case(tmp_path: Path, empty_database: Path) -> Callable[[str], Case]:
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return lambda weights="weights": build_case(tmp_path, weights)


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    return make_case()
