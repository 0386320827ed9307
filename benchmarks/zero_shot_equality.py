"""Our zero-shot tasks beside lm-eval's own command, on the same model and the same rows.

    python -m benchmarks.zero_shot_equality --base FOLDER --data FOLDER --work FOLDER

FOLDER of the base is a Transformers checkpoint; that of the data holds the JSONL files in ``DATA``.
lm-eval runs in a process of its own on task files that include its own, so that prompts, targets
and figures are its own; only the data is local. What is finished stays in ``--work``: a run that
was cut off goes on. ``--tasks piqa`` takes that one alone. Prints a JSON list.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

# lm-eval's own file of each of our formats
FILES = {
    "arc": "arc/arc_easy.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "sciq": "sciq/sciq.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "lambada": "lambada/lambada_openai.yaml",
}
DATA = {  # by task: its format and its file
    "arc_easy": ("arc", "arc_easy_validation.jsonl"),
    "arc_challenge": ("arc", "arc_challenge_validation.jsonl"),
    "hellaswag": ("hellaswag", "hellaswag_validation_1000.jsonl"),
    "piqa": ("piqa", "piqa_validation.jsonl"),
    "openbookqa": ("openbookqa", "openbookqa_validation.jsonl"),
    "winogrande": ("winogrande", "winogrande_validation.jsonl"),
}


def write_task(folder: Path, task: str, form: str, data: str, cache: Path) -> None:
    """lm-eval's task of a format over a JSONL file; paths in it are relative to the folder."""
    document = {
        "include": str(files("lm_eval") / "tasks" / FILES[form]),
        "task": task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": data}, "cache_dir": str(cache)},
        "training_split": None,
        "validation_split": "validation",
        "test_split": None,
        "fewshot_split": None,
    }
    with (folder / f"{task}.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(document, file)


def theirs(
    base: Path, data: Path, work: Path, limit: int, tasks: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's samples of every task, in the order of the rows."""
    folder = work / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        form, name = DATA[task]
        shutil.copyfile(data / name, folder / name)
        write_task(folder, f"my_{task}", form, name, work / "datasets")
    samples = {}
    for task in tasks:  # one at a time: each that is finished stays
        found = sorted((work / task).glob("*/samples_*.jsonl"))
        if not found:
            command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf"]
            command += ["--model_args", f"pretrained={base},dtype=float32", "--device", "cpu"]
            command += ["--tasks", f"my_{task}", "--include_path", ".", "--limit", str(limit)]
            command += ["--batch_size", "8", "--log_samples", "--output_path", str(work / task)]
            command += ["--use_cache", str(work / f"{task}-answers")]
            subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
            found = sorted((work / task).glob("*/samples_*.jsonl"))
        lines = [json.loads(line) for line in found[-1].read_text(encoding="utf-8").splitlines()]
        samples[task] = sorted(lines, key=lambda line: line["doc_id"])
    return samples


def ours(
    base: Path, data: Path, work: Path, limit: int, tasks: list[str]
) -> dict[str, dict[str, Any]]:
    """Our figures with their items, by task and figure."""
    from layerwright.tasks.components import build
    from layerwright.tasks.context import Context
    from layerwright.tasks.contracts.base import Spec
    from layerwright.tasks.evaluate.arms import ArmModel, Arms
    from layerwright.tasks.evaluate.base import Metric
    from layerwright.tasks.evaluate.texts import Texts
    from layerwright.tasks.fetch.text import fetch_text
    from layerwright.tasks.models.loading import load_tokenizer
    from layerwright.tasks.offload.offload import load_streamed
    from layerwright.tasks.progress import progress
    from layerwright.tasks.recipe.data import TextSource
    from layerwright.tasks.store.local import LocalStore

    store, folders = LocalStore(work / "store"), {}
    for task in tasks:
        name = DATA[task][1]
        source = TextSource(source=f"local:{data / name}", form="items")
        text = fetch_text(source, Context(store=store, workdir=work / "fetch" / task))
        folders[task] = store.open_tree(text.sha256)
    found: dict[str, dict[str, Any]] = {}
    with progress() as bar, load_streamed(base) as streamed:
        arms = Arms(
            {"base": ArmModel("base", lambda: streamed.model)},
            Texts(folders, lambda: load_tokenizer(base)),
            [],
            device="cpu",
            seed=0,
            workdir=work / "ours",
            bar=bar,
        )
        for task in tasks:
            form = DATA[task][0]
            metric = build(Metric, Spec(name=form, texts=[task], limit=limit))
            figures = {f.measurement.metric.rpartition(".")[2]: f for f in metric.measure(arms)}
            found[task] = figures
    return found


def compared(task: str, figures: Mapping[str, Any], samples: list[dict[str, Any]]) -> dict:
    """Both sides' share of right items by figure, and how many items they disagree on."""
    result: dict[str, Any] = {"task": task, "items": len(samples)}
    for name, figure in figures.items():
        right = [bool(sample[name]) for sample in samples]
        result[name] = {
            "lm_eval": sum(right) / len(right),
            "ours": figure.measurement.value,
            "items_that_differ": sum(
                item.correct != expected for item, expected in zip(figure.items, right, strict=True)
            ),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("base", "data", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", choices=list(DATA), default=list(DATA))
    given = parser.parse_args()
    base, data, work = (path.resolve() for path in (given.base, given.data, given.work))
    figures = ours(base, data, work, given.limit, given.tasks)
    samples = theirs(base, data, work, given.limit, given.tasks)
    found = [compared(task, figures[task], samples[task]) for task in given.tasks]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
