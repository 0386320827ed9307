"""The profile step on the tiny model: every profiler, a stored base and a text."""

import json
from pathlib import Path

from tiny_checkpoint import tiny_ref, write_checkpoint

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.store.local import LocalStore

PROFILERS = (
    Spec(name="angular_distance", lengths=[1]),
    Spec(name="attention_span"),
    Spec(name="block_influence"),
    Spec(name="covered_span", spans=[16]),
    Spec(name="laziness", sinks=2, window=14),
    Spec(name="linearity"),
    Spec(name="sensitivity", rows=1, prompts=1, prompt_tokens=420),
    Spec(name="trsp_scale", steps_per_layer=1),
)


def inputs(folder: Path) -> tuple[ModelRef, TextRef, Context]:
    store = LocalStore(folder / "store")
    tree = store.put_tree(write_checkpoint(folder / "model"))
    model = tiny_ref(tree)
    text = folder / "text"
    text.mkdir()
    words = " ".join(f"Item {i * i} was counted." for i in range(60))
    (text / "documents.jsonl").write_text(json.dumps({"text": words}) + "\n")
    tree = store.put_tree(text)
    ref = TextRef(**tree.model_dump(), source="made", documents=1, characters=len(words))
    return model, ref, Context(store=store, workdir=folder / "work", seed=1)


def options(*profilers: Spec) -> ProfileOptions:
    return ProfileOptions(text="calibration", rows=5, row_tokens=80, profilers=profilers)
