"""Steps on workers of work pools: a real Prefect server, and a process worker for each of two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from facts import missing
from layerwright_process import last_line, layerwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.deployments import run_deployment
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.session.runs import RunFolder
from layerwright.infra.stack import WORKERS, Stack
from layerwright.tasks.home import Home

ON_POOLS = (
    "--set", "compute.steps.profile={where: pool, pool: gpu, retries: 1}",
    "--set", "compute.steps.evaluate={where: pool, pool: cpu, queue: steps}",
)  # fmt: skip


@pytest.fixture(scope="module")
def stack(shared_server: Stack) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("OMP_NUM_THREADS", "1")  # as the parents: sums depend on their order
        shared_server.up(["workers"])
    yield shared_server
    for pool in WORKERS:
        shared_server.processes.stop(f"worker-{pool}")


def test_the_same_result_as_in_one_process(stack: Stack, tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    command = ("convert", "recipe.yaml", "--json")
    placed = layerwright(*command, *ON_POOLS, "--home", "a", cwd=tmp_path, **stack.environment)
    assert placed.returncode == 0, placed.stderr
    assert not missing(placed.stderr, "profile", "pool gpu")
    assert "profiled 4 layers" in placed.stderr, "the child's log is said by the parent"
    inline = layerwright(*command, "--home", "b", cwd=tmp_path)
    there, here = last_line(placed), last_line(inline)
    for same in ("plan", "checkpoint", "metrics"):
        expected = here[same] | ({"uri": there[same]["uri"]} if same == "checkpoint" else {})
        assert there[same] == expected

    again = layerwright(*command, *ON_POOLS, "--home", "a", cwd=tmp_path, **stack.environment)
    assert "evaluate" in last_line(again)["cache_hits"], "the parent owns the cache"


def test_a_deployment_is_the_flow_itself(stack: Stack, tmp_path: Path) -> None:
    """One flow run, named by the run's id, whose state says what the gate decided."""
    recipe = write_tiny_inputs(tmp_path)
    given = {"recipe": str(recipe), "home": str(tmp_path / "home")}
    tight = "gate.rules.0.max=0.01"
    with stack.client():
        accepted = run_deployment("convert/scheduled", parameters=given | {"assignments": []})
        rejected = run_deployment("convert/scheduled", parameters=given | {"assignments": [tight]})
        with get_client(sync_client=True) as client:
            children = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    parent_flow_run_id={"any_": [accepted.id, rejected.id]}
                )
            )
            names = {client.read_flow_run(run.id).name for run in (accepted, rejected)}
    assert children == []
    assert (accepted.state_name, rejected.state_name) == ("Completed", "Rejected")
    assert "kv_bytes" in rejected.state.message
    records = RunFolder.all(Home.at(tmp_path / "home"))
    assert [record.state for record in records] == ["accepted", "rejected"]
    assert names == {record.run_id for record in records}


def test_what_is_wrong_on_the_worker_is_told_here_and_not_tried_again(
    stack: Stack, tmp_path: Path
) -> None:
    write_tiny_inputs(tmp_path)
    rows = "profile.rows=100000"  # more than the text has: seen where the text is read
    result = layerwright(
        "convert", "recipe.yaml", *ON_POOLS, "--set", rows, cwd=tmp_path, **stack.environment
    )
    assert result.returncode == 2, result.stderr
    assert "calibration" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("compute.steps.profile={where: pool, pool: tpu}", "one of cpu, gpu"),
        (
            "compute.steps.gate={where: pool, pool: cpu}",
            "gate always runs in",
        ),
        ("compute.default={pool: cpu}", "where: pool together with pool"),
        ("compute.default={where: pool}", "the name of a work pool"),
    ],
)
def test_a_wrong_place_is_refused_before_the_start(
    stack: Stack, tmp_path: Path, setting: str, expected: str
) -> None:
    write_tiny_inputs(tmp_path)
    result = layerwright(
        "convert", "recipe.yaml", "--set", setting, cwd=tmp_path, **stack.environment
    )
    assert result.returncode == 2, result.stderr
    assert expected in result.stderr
    assert not (tmp_path / ".layerwright" / "runs").exists()


def test_a_pool_needs_a_server(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    result = layerwright("convert", "recipe.yaml", *ON_POOLS, cwd=tmp_path, embedded=True)
    assert result.returncode == 2
    assert "PREFECT_API_URL" in result.stderr
