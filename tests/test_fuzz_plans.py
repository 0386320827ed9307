"""Broken plans: told with exit status 2, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layerwright_process import layerwright
from mutations import FUZZ, files_under, holds, mutated

from layerwright.flows.session.preflight import check_plan
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.convert.plan_file import diff_plans, read_plan
from layerwright.tasks.errors import InputError

PLAN = ConversionPlan(
    model_sha256="ab" * 32,
    layers=6,
    context_tokens=8192,
    selector="milp",
    items=(
        PlanItem(start=0, stop=2, strategy="keep", reason="needed for recall"),
        PlanItem(start=2, stop=3, strategy="streaming", params={"sinks": 4, "window": 252}),
        PlanItem(start=3, stop=5, strategy="linear", predicted_language_nats=0.01),
        PlanItem(start=5, stop=6, strategy="gated_recurrence", params={"window": 64}),
    ),
)
DOCUMENT = PLAN.model_dump(mode="json", exclude_defaults=True)


def dumped(document: object) -> bytes:
    return json.dumps(document).replace("NaN", ".nan").replace("Infinity", ".inf").encode()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.yaml"
    path.write_bytes(dumped(DOCUMENT))
    assert check_plan(path) == PLAN
    return path


@FUZZ
@given(mutated(DOCUMENT))
def test_changed_values(path: Path, document: object) -> None:
    path.write_bytes(dumped(document))
    before = files_under(path.parent)
    holds(lambda: check_plan(path), 2)
    holds(lambda: diff_plans(PLAN, read_plan(path)), 2)
    assert files_under(path.parent) == before


@FUZZ
@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    holds(lambda: check_plan(path), 2)


def test_a_plan_has_no_more_layers_than_a_model_can_have(path: Path) -> None:
    items = [{"start": 0, "stop": 10**12, "strategy": "keep"}]
    path.write_bytes(dumped(DOCUMENT | {"layers": 10**12, "items": items}))
    with pytest.raises(InputError, match="layers"):
        read_plan(path)


def test_the_command_says_where(path: Path) -> None:
    path.write_bytes(dumped(DOCUMENT | {"selector": {"a": 1}}))
    result = layerwright("plan", "validate", "plan.yaml", cwd=path.parent)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False), result.stderr
    assert result.stderr.startswith("error: plan.yaml:1: selector: impossible value")
