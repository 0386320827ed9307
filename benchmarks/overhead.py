"""Time the convert command and the same step functions in a plain script.

    python -m benchmarks.overhead [--recipe recipes/quickstart.yaml] [--set A.B=C] [--repeats 1]

Both start from an empty home in a process of their own, imports included; arms alternate. The plain
script calls each step's function in order and keeps nothing but the store.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path


def plain(recipe_path: Path, assignments: list[str], home: Path) -> None:
    """The DAG by hand: no Prefect, no cache, no server."""
    from layerwright.flows.session.inputs import calibration, profiled
    from layerwright.flows.session.sources import texts_of_flow
    from layerwright.tasks.choose.step import choose_on_model
    from layerwright.tasks.context import Context
    from layerwright.tasks.contracts.items import read_items
    from layerwright.tasks.convert.checkpoint import convert_model
    from layerwright.tasks.evaluate.models import evaluate_models
    from layerwright.tasks.evaluate.suite import needed_texts
    from layerwright.tasks.fetch.model import fetch_model
    from layerwright.tasks.fetch.text import fetch_text
    from layerwright.tasks.finetune.healing import finetune_model
    from layerwright.tasks.gate.policy import decide
    from layerwright.tasks.home import Home
    from layerwright.tasks.profile.model import profile_model
    from layerwright.tasks.recipe.recipe import load_recipe
    from layerwright.tasks.register.evidence import Evidence
    from layerwright.tasks.register.registry import register_model
    from layerwright.tasks.store.local import LocalStore

    recipe, _ = load_recipe(recipe_path, assignments)
    if not (recipe.choose and recipe.finetune and recipe.evaluate):
        raise SystemExit(f"{recipe_path}: choose, finetune and evaluate are needed")
    if not (recipe.gate and recipe.registry):
        raise SystemExit(f"{recipe_path}: gate and registry are needed")
    paths = Home.at(home)
    store = LocalStore(paths.store)

    def context(step: str) -> Context:
        workdir = paths.work(step)
        workdir.mkdir(parents=True)
        return Context(store=store, workdir=workdir, seed=recipe.seed)

    evaluated = needed_texts(recipe.evaluate.metrics)
    model = fetch_model(recipe.model, context("model"), recipe.data_root)
    names = sorted(texts_of_flow(recipe, "convert"))
    texts = {n: fetch_text(recipe.data[n], context(n), recipe.data_root) for n in names}
    text, strategies = texts[recipe.profile.text], recipe.choose.strategies
    profile = profile_model(model, text, recipe.profile, strategies, context("profile"))
    rows = calibration(recipe, texts)
    tried_on = profiled(recipe, texts)
    plan = choose_on_model(model, profile, tried_on, rows, recipe.choose, None, context("choose"))
    converted = convert_model(model, plan, rows, context("convert"))
    options = recipe.finetune
    held_out = texts[options.validation.text] if options.validation else None
    healing = finetune_model(
        model, converted, texts[options.text], held_out, options, context("finetune")
    )
    wanted = {name: texts[name] for name in evaluated}
    report = evaluate_models(
        model, healing.checkpoint, None, None, wanted, recipe.evaluate, context("evaluate")
    )
    assert report.items
    items = read_items(store.open_tree(report.items.sha256))
    decision = decide(report, items, recipe.gate, datetime.now(UTC))
    if decision.accepted:
        checkpoint = healing.checkpoint
        evidence = Evidence(
            run_id="plain", candidate=checkpoint, plan=plan, report=report, decision=decision
        )
        register_model(evidence, recipe.registry, tracking_uri=paths.tracking_uri, store=store)


def wall(command: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/quickstart.yaml"))
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="A.B=C")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only-plain", type=Path, metavar="HOME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_plain:
        plain(options.recipe, options.assignments, options.only_plain)
        return
    changes = [part for a in options.assignments for part in ("--set", a)]
    times: dict[str, list[float]] = {"plain": [], "orchestrated": []}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-m", "benchmarks.overhead", "--recipe", str(options.recipe)]
            times["plain"].append(wall([*command, *changes, "--only-plain", home]))
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-m", "layerwright", "convert", str(options.recipe)]
            times["orchestrated"].append(wall([*command, *changes, "--home", home]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    extra = medians["orchestrated"] - medians["plain"]
    result = {
        "recipe": str(options.recipe),
        "changes": options.assignments,
        "seconds": {name: [round(v, 1) for v in values] for name, values in times.items()},
        "overhead_seconds": round(extra, 1),
        "overhead_ratio": round(extra / medians["plain"], 3),
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
