"""Time a step on a worker of a work pool and inside the run, to measure the pool's overhead.

    python -m benchmarks.hand_over --recipe FILE [--repeats 3] [--folder DIR]

Starts the production stack of infra/stack.py in a folder of its own and runs the deployment
``convert/scheduled`` in turns with all steps in the run's own process and with profile and evaluate
on workers; each with a seed of its own, so that no result is shared. Seconds are those of the run's
task, from its start to the step's result, medians with the range. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from layerwright.infra.stack import Stack

ON_POOLS = {
    "profile": "compute.steps.profile={where: pool, pool: gpu}",
    "evaluate": "compute.steps.evaluate={where: pool, pool: cpu, queue: steps}",
}


def step_seconds(recipe: Path, settings: list[str]) -> dict[str, float]:
    """One run to its end; the seconds of the two steps."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.deployments import run_deployment

    parameters = {"recipe": str(recipe), "assignments": settings}
    ended: Any = run_deployment("convert/scheduled", parameters=parameters, poll_interval=1)
    assert ended.state
    assert ended.state.is_completed(), ended.state
    with get_client(sync_client=True) as client:
        run = FlowRunFilter(id=FlowRunFilterId(any_=[ended.id]))
        tasks = client.read_task_runs(flow_run_filter=run, limit=200)
    named = {task.name.partition("-")[0]: task.total_run_time for task in tasks}
    return {step: named[step].total_seconds() for step in ON_POOLS}


def measure(recipe: Path, repeats: int, stack: Stack) -> dict[str, Any]:
    settings = [
        f"store={stack.environment['LAYERWRIGHT_STORE']}",
        f"registry.tracking_uri={stack.environment['MLFLOW_TRACKING_URI']}",
    ]
    arms = {"in the run": settings, "on a worker": [*settings, *ON_POOLS.values()]}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for repeat in range(repeats):
        for place, (arm, said) in enumerate(arms.items()):
            seed = f"seed={2 * repeat + place}"
            for step, seconds in step_seconds(recipe, [*said, seed]).items():
                found[step, arm].append(seconds)
    told: dict[str, Any] = {}
    for (step, arm), times in found.items():
        spread = statistics.median(times), min(times), max(times)
        told.setdefault(step, {})[arm] = [round(x, 2) for x in spread]
    for arms_of in told.values():
        arms_of["hand-over"] = round(arms_of["on a worker"][0] - arms_of["in the run"][0], 2)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerwright-hand-over-") as temporary:
        stack = Stack(given.folder or Path(temporary))
        stack.up()
        try:
            with stack.client():
                told = measure(given.recipe.resolve(), given.repeats, stack)
        finally:
            stack.down()
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
