"""Run conversions on the production stack: many at once, or single steps on workers.

    python -m benchmarks.stack queue FILE [--runs 50] [--at-once 2] [--folder DIR]
    python -m benchmarks.stack hand-over FILE [--repeats 3] [--folder DIR]

Both start the stack of infra/stack.py in a folder of its own and run the deployment
``convert/scheduled``, each run with its own seed, so that no result is shared. They print one JSON
object.
"""

import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import typer
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.deployments import run_deployment

from benchmarks.common import spread
from layerwright.infra.stack import Stack

DEPLOYMENT = "convert/scheduled"
ON_POOLS = {
    "profile": "compute.steps.profile={where: pool, pool: gpu}",
    "evaluate": "compute.steps.evaluate={where: pool, pool: cpu, queue: steps}",
}
app = typer.Typer(add_completion=False, no_args_is_help=True)


@contextmanager
def running(folder: Path | None) -> Iterator[tuple[Stack, list[str]]]:
    """The stack, which this process is a client of, and its settings of a run."""
    stack = Stack(folder or Path(tempfile.mkdtemp(prefix="layerwright-stack-")))
    stack.up()
    try:
        settings = [
            f"store={stack.environment['LAYERWRIGHT_STORE']}",
            f"registry.tracking_uri={stack.environment['MLFLOW_TRACKING_URI']}",
        ]
        with stack.client():
            yield stack, settings
    finally:
        stack.down()


def begin(recipe: Path, settings: list[str], seed: int, **options: Any) -> Any:
    parameters = {"recipe": str(recipe.resolve()), "assignments": [*settings, f"seed={seed}"]}
    return run_deployment(DEPLOYMENT, parameters=parameters, **options)


def sizes(stack: Stack) -> dict[str, int]:
    """Bytes in memory of the two servers with their children, and bytes of their databases."""
    import psycopg2

    found = {}
    for name in ("prefect", "mlflow"):
        process = stack.processes.alive(name)
        assert process is not None, f"{name} has ended"
        family = [process, *process.children(recursive=True)]
        found[f"{name}_rss"] = sum(member.memory_info().rss for member in family)
    address = f"postgresql://{stack.database}/postgres"
    with psycopg2.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname, pg_database_size(datname) FROM pg_database")
        databases = dict(cursor.fetchall())
    return found | {f"{name}_database": databases[name] for name in ("prefect", "mlflow")}


def most_at_once(spans: Sequence[tuple[datetime, datetime]]) -> int:
    ends = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    return max(accumulate(change for _, change in ends), default=0)


@app.command()
def queue(recipe: Path, runs: int = 50, at_once: int = 2, folder: Path | None = None) -> None:
    """Queue many runs on two workers under a limit: lost runs, and the servers' growth."""
    with running(folder) as (stack, settings), get_client(sync_client=True) as client:
        stack.start_worker("cpu", "worker-cpu-2")
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        client.update_deployment(deployment.id, DeploymentUpdate(concurrency_limit=at_once))
        before, started = sizes(stack), time.perf_counter()
        ids = [begin(recipe, settings, seed, timeout=0).id for seed in range(runs)]
        queued = time.perf_counter() - started
        while True:
            found = [client.read_flow_run(one) for one in ids]
            if all(run.state and run.state.is_final() for run in found):
                break
            time.sleep(5)
        seconds, after = time.perf_counter() - started, sizes(stack)
    spans = [(run.start_time, run.end_time) for run in found if run.start_time and run.end_time]
    result = {
        "runs": runs,
        "states": dict(Counter(run.state.name for run in found if run.state)),
        "most_at_once": most_at_once(spans),
        "limit": at_once,
        "seconds": round(seconds, 1),
        "seconds_to_queue": round(queued, 1),
        "before": before,
        "after": after,
    }
    print(json.dumps(result, indent=1))


@app.command()
def hand_over(recipe: Path, repeats: int = 3, folder: Path | None = None) -> None:
    """Time profile and evaluate in the run's own process and on workers, in turns.

    Seconds are those of the run's task, from its start to the step's result.
    """
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with running(folder) as (_, settings), get_client(sync_client=True) as client:
        arms = {"in the run": settings, "on a worker": [*settings, *ON_POOLS.values()]}
        for repeat in range(repeats):
            for place, (arm, said) in enumerate(arms.items()):
                ended = begin(recipe, said, 2 * repeat + place, poll_interval=1)
                assert ended.state.is_completed(), ended.state
                run = FlowRunFilter(id=FlowRunFilterId(any_=[ended.id]))
                for task in client.read_task_runs(flow_run_filter=run, limit=200):
                    if (step := task.name.partition("-")[0]) in ON_POOLS:
                        times[step][arm].append(task.total_run_time.total_seconds())
    told: dict[str, dict[str, Any]] = {}
    for step, of_arm in times.items():
        told[step] = {arm: spread(found) for arm, found in of_arm.items()}
        extra = told[step]["on a worker"][0] - told[step]["in the run"][0]
        told[step]["hand-over"] = round(extra, 2)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    app()
