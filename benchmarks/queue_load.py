"""Queue many small conversions on two workers: check runs and limits, measure servers' growth.

    python -m benchmarks.queue_load --recipe FILE [--runs 50] [--at-once 2] [--folder DIR]

Starts the production stack of infra/stack.py in a folder of its own, queues the runs (each with a
seed of its own, so that no result is shared) on the deployment ``convert/scheduled`` whose limit is
set to ``--at-once``, and ends the stack. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from layerwright.infra.stack import Stack


def resident(stack: Stack, name: str) -> int:
    """Bytes that a server and its children hold."""
    process = stack.processes.alive(name)
    assert process is not None, f"{name} has ended"
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family)


def database_bytes(stack: Stack) -> dict[str, int]:
    import psycopg2

    with (
        psycopg2.connect(f"postgresql://{stack.database}/postgres") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT datname, pg_database_size(datname) FROM pg_database")
        return {name: size for name, size in cursor.fetchall() if name in ("prefect", "mlflow")}


def sizes(stack: Stack) -> dict[str, int]:
    servers = {f"{name}_rss": resident(stack, name) for name in ("prefect", "mlflow")}
    return servers | {f"{name}_database": n for name, n in database_bytes(stack).items()}


def at_once(spans: Sequence[tuple[datetime, datetime]]) -> int:
    """The most that ran at the same time."""
    ends = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    running, most = 0, 0
    for _, change in ends:
        running += change
        most = max(most, running)
    return most


def queue(recipe: Path, runs: int, limit: int, stack: Stack) -> dict[str, Any]:
    """Queue them all, wait for the last, and say what became of them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.deployments import run_deployment

    settings = [
        f"store={stack.environment['LAYERWRIGHT_STORE']}",
        f"registry.tracking_uri={stack.environment['MLFLOW_TRACKING_URI']}",
    ]
    with stack.client(), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("convert/scheduled")
        client.update_deployment(deployment.id, DeploymentUpdate(concurrency_limit=limit))
        before, started = sizes(stack), time.perf_counter()
        begun: list[Any] = [
            run_deployment(
                "convert/scheduled",
                parameters={"recipe": str(recipe), "assignments": [*settings, f"seed={seed}"]},
                timeout=0,
            )
            for seed in range(runs)
        ]
        ids = [run.id for run in begun]
        queued = time.perf_counter() - started
        while True:
            found = [client.read_flow_run(one) for one in ids]
            if all(run.state and run.state.is_final() for run in found):
                break
            time.sleep(5)
        seconds = time.perf_counter() - started
    spans = [(run.start_time, run.end_time) for run in found if run.start_time and run.end_time]
    return {
        "runs": runs,
        "states": dict(Counter(run.state.name for run in found if run.state)),
        "most_at_once": at_once(spans),
        "limit": limit,
        "seconds": round(seconds, 1),
        "seconds_to_queue": round(queued, 1),
        "before": before,
        "after": sizes(stack),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="layerwright-load-"))
    stack = Stack(folder)
    stack.up()
    try:
        stack.start_worker("cpu", "worker-cpu-2")
        result = queue(given.recipe.resolve(), given.runs, given.at_once, stack)
    finally:
        stack.down()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
