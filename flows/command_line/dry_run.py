"""What a run would do: which steps are cached, and rough time, memory and disk of the others."""

from __future__ import annotations

import time
from typing import Any

from layerwright.flows.session.launch import Launch
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.steps import Step, steps


def dry_run(launch: Launch) -> dict[str, Any]:
    """Walk the DAG along the cache until the first step that must do its work.

    Returns:
        ``{"steps": [{"step", "state", "seconds"}], "memory_bytes", "disk_bytes", "basis"}``.
        Times are estimates from a matrix product timed now, good to a factor of about two.
    """
    from layerwright.flows.convert import conversion
    from layerwright.tasks.fetch.task import fetch_model
    from layerwright.tasks.orchestration.place import NotCached, Run

    run = Run(launch.place, dry=True)
    model: ModelRef | None = None
    recipe = launch.recipe
    try:
        model = fetch_model(
            recipe.model, recipe.data_root, launch.pins["model"], run=Run(launch.place, dry=True)
        )
        conversion(recipe, launch.pins, "dry-run", run, launch.plan)
    except NotCached:
        pass
    if model is None:
        run.hits["fetch"] = False
    parameters = model.parameters if model else None
    token_seconds = 2 * parameters / _flops_per_second() if parameters else None

    def seconds(step: Step) -> float | None:
        if run.hits.get(step.name):
            return 0.0
        return step.estimate(recipe, model, token_seconds) if model and token_seconds else None

    width = 4
    return {
        "steps": [
            {
                "step": name,
                "state": "cached" if run.hits.get(name) else "to do",
                "seconds": seconds(step),
            }
            for name, step in steps().items()
            if step.block is None or getattr(recipe, step.block)
        ],
        # base, candidate and their logits; training keeps a gradient path besides
        "memory_bytes": int(2.5 * parameters * width + 1.6e9) if parameters else None,
        "disk_bytes": 3 * parameters * width if parameters else None,
        "basis": "measured matrix product" if parameters else "unknown until the model is fetched",
    }


def _flops_per_second(size: int = 768, repeats: int = 5) -> float:
    import torch

    a = torch.randn(size, size)
    a @ a  # the first product pays for start-up
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2 * size**3 / sorted(times)[repeats // 2]
