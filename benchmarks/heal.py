"""Measure the quality that healing recovers, arm by arm, and the tokens that it trains on.

    python -m benchmarks.heal --data DIR --out OUT            # the next arm that is not done yet
    python -m benchmarks.heal --data DIR --out OUT --arm NAME
    python -m benchmarks.heal ... --set finetune.stages.0.precision=float32   # no bf16 in hardware
    python -m benchmarks.heal --out OUT --table               # what is known so far, as Markdown

Each arm is a run of ``layerwright convert`` on a recipe made of ``benchmarks/heal.yaml``: it is
cached and resumes like any other, so an arm that was interrupted is called again. DIR holds the
texts that the file names. OUT keeps a home folder, the recipes, and one result file per arm.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.home import Home

ARMS = Path(__file__).with_suffix(".yaml")
REJECTED = 3  # what the command ends with where the gate rejects; a result like any other
FIGURES = ("perplexity.test", "recall.passkey.600", "key_log_prob.passkey.600", "cloze.novel")


def overlaid(under: Any, over: Any) -> Any:
    """``over`` laid over ``under``: mappings key by key, anything else whole."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {key: overlaid(under.get(key), value) for key, value in over.items()}


def recipe_of(name: str, arms: dict[str, Any], data: Path) -> dict[str, Any]:
    """The arm's whole recipe."""
    shared = {"name": f"heal-{name}", "data_root": str(data.resolve())} | arms["recipe"]
    return overlaid(shared, arms["arms"][name]["recipe"])


def run_arm(
    name: str, arms: dict[str, Any], data: Path, out: Path, sets: list[str]
) -> dict[str, Any]:
    """Run one arm through the command, changed by ``sets``, and keep its figures."""
    recipe = out / f"{name}.yaml"
    write_atomically(recipe, yaml.safe_dump(recipe_of(name, arms, data), sort_keys=False).encode())
    command = [sys.executable, "-m", "layerwright", "convert", str(recipe), "--json"]
    command += [part for change in sets for part in ("--set", change)]
    done = subprocess.run(
        [*command, "--home", str(out / "home")], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, REJECTED):
        raise SystemExit(done.returncode)
    summary = json.loads(done.stdout)
    folder = RunFolder(Home.at(out / "home"), summary["run_id"]).path
    result = {
        "arm": name,
        "date": datetime.now(UTC).date().isoformat(),
        "set": sets,
        "machine": f"{os.cpu_count()} x {platform.processor() or platform.machine()}",
        **trained(folder),
        "metrics": summary["metrics"],
    }
    write_atomically(out / f"{name}.json", json.dumps(result, indent=1).encode())
    return result


def trained(folder: Path) -> dict[str, Any]:
    """Tokens and minutes of the run's trainings, and the validation on the way."""
    tokens, seconds, validation = 0, 0.0, []
    regularization, healing = folder / "regularization.json", folder / "finetune.json"
    if regularization.is_file():
        before = RegularizationReport.model_validate_json(regularization.read_bytes())
        tokens, seconds = before.tokens, before.seconds
    if healing.is_file():
        report = FinetuneReport.model_validate_json(healing.read_bytes())
        tokens, seconds = tokens + report.tokens, seconds + report.seconds
        validation = [[point.tokens, point.nll, point.kl] for point in report.validation]
    return {"tokens": tokens, "minutes": round(seconds / 60, 1), "validation": validation}


def table(arms: dict[str, Any], out: Path) -> str:
    """One row per arm that is done; ``before`` is the arm's conversion without any training.

    KL is to the base, on the held-out rows, before and after healing.
    """
    results = {path.stem: json.loads(path.read_bytes()) for path in out.glob("*.json")}
    lines = [
        "| arm | tokens | minutes | perplexity before | after | KL | keys | key log-prob | cloze |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    if results:
        lines.append(_row("base", 0, next(iter(results.values()))["metrics"]["base"]))
    for name, arm in arms["arms"].items():
        if name in results:
            result = results[name]
            before = results.get(arm.get("before", ""), {}).get("metrics", {}).get("candidate", {})
            shown = before.get("perplexity.test")
            after = result["metrics"]["candidate"]
            kl = [point[2] for point in result["validation"]]
            what = ", ".join([arm["what"], *result.get("set", [])])
            change = f"{kl[0]:.3f} to {kl[-1]:.3f}" if kl else "-"
            tokens = result["tokens"]
            lines.append(_row(what, tokens, after, result["minutes"], shown, kl=change))
            if control := result["metrics"].get("control"):
                lines.append(_row("… the base trained alike", tokens, control))
            for metric, value in after.items():
                if metric.startswith("perplexity_without"):
                    lines.append(f"| &nbsp;&nbsp;{metric} | | | | {value:.2f} | | | | |")
    return "\n".join(lines)


def _row(
    what: str, tokens: int, after: dict[str, float | None], *trained: float | None, kl: str = "-"
) -> str:
    """A line of the table; ``trained`` are the minutes and the perplexity before."""
    figures = (*(trained or (None, None)), *(after.get(name) for name in FIGURES))
    shown = ["-" if figure is None else f"{figure:.4g}" for figure in figures]
    shown.insert(3, kl)  # behind both perplexities
    return f"| {what} | {tokens:,} | " + " | ".join(shown) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arm")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    arms = yaml.safe_load(ARMS.read_text())
    if not options.table:
        left = [name for name in arms["arms"] if not (options.out / f"{name}.json").is_file()]
        name = options.arm or (left[0] if left else None)
        if name is not None:
            if name not in arms["arms"] or options.data is None:
                parser.error(f"--data, and an arm of {', '.join(arms['arms'])}")
            options.out.mkdir(parents=True, exist_ok=True)
            run_arm(name, arms, options.data, options.out, options.set)
    print(table(arms, options.out))


if __name__ == "__main__":
    main()
