"""A base, its converted checkpoint and a text in a store; and a process that heals and dies."""

import json
import os
import signal
from pathlib import Path

from tiny import tiny_llama_config
from tiny_checkpoint import write_checkpoint

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.training import FinetuneReport
from layerwright.tasks.finetune.healing import finetune_model
from layerwright.tasks.hybrid.export import write_hybrid
from layerwright.tasks.recipe.training import (
    AdapterOptions,
    FinetuneOptions,
    HealingStage,
    ValidationOptions,
)
from layerwright.tasks.store.local import LocalStore

STREAMING = {"mixer": {"kind": "streaming", "sinks": 1, "window": 6}}
FULL = {"mixer": {"kind": "full"}}
LAYERS = 4
TEXT = "The baker sold a basket of apples by the river, and nobody seemed to mind. " * 4
STAGE = HealingStage(
    objectives=(Spec(name="logit_kl"), Spec(name="next_token", weight=0.1)),
    steps=24,
    rows_per_step=2,
    learning_rate=2e-2,
    warmup_steps=2,
    adapter=AdapterOptions(rank=4, alpha=8),
)
OPTIONS = FinetuneOptions(text="english", row_tokens=32, stages=(STAGE,), checkpoint_every=4)
LAYER_BY_LAYER = HealingStage(
    objectives=(Spec(name="attention_output"),),
    steps=6,
    learning_rate=2e-3,
    schedule="linear",
    adapter=AdapterOptions(kind="full"),
)
TWO_STAGES = OPTIONS.model_copy(
    update={
        "stages": (LAYER_BY_LAYER, STAGE.model_copy(update={"steps": 12, "learning_rate": 5e-3})),
        "validation": ValidationOptions(text="held-out", rows=3, every_tokens=200),
    }
)
HELD_OUT = "A clerk kept a list of every boat that came into the harbour. " * 4


class HealingCase:
    """Everything that ``finetune_model`` needs, under one folder."""

    def __init__(self, root: Path, *, streaming: bool = True) -> None:
        self.root, self.log = root, []
        self.store = LocalStore(root / "store")
        self.base = ModelRef(
            **self._tree("base"),
            source="tiny",
            family="llama",
            layers=LAYERS,
            hidden_size=48,
            kv_heads=2,
            head_dim=8,
            vocabulary=259,
            max_positions=2048,
            parameters=100_000,
            dtype="float32",
        )
        specs = [STREAMING if streaming and layer % 2 else FULL for layer in range(LAYERS)]
        self.checkpoint = CheckpointRef(
            **self._tree("converted", specs),
            base_sha256=self.base.sha256,
            plan_sha256="p" * 64,
        )

    def _tree(self, name: str, specs: list[dict] | None = None) -> dict:
        folder = write_checkpoint(self.root / name)
        if specs:
            write_hybrid(folder, tiny_llama_config(max_position_embeddings=2048), specs)
            (folder / "layerwright.json").write_text('{"format": 1, "plan": "by hand"}')
        return self.store.put_tree(folder).model_dump()

    def text(self, text: str = TEXT, name: str = "text") -> TextRef:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "documents.jsonl").write_text(json.dumps({"text": text}) + "\n")
        tree = self.store.put_tree(folder)
        return TextRef(**tree.model_dump(), source="tiny", documents=1, characters=len(text))

    def context(self, log=None, **given) -> Context:
        workdir = self.root / "work"
        workdir.mkdir(exist_ok=True)
        log = log or self.log.append
        return Context(store=self.store, workdir=workdir, seed=7, log=log, **given)

    def heal(self, options=OPTIONS, log=None, text: str = TEXT, **given) -> FinetuneReport:
        held_out = self.text(HELD_OUT, "held-out") if options.validation else None
        ctx = self.context(log, **given)
        return finetune_model(self.base, self.checkpoint, self.text(text), held_out, options, ctx)


def heal_and_die(root: Path, options: FinetuneOptions, kill_at: str) -> None:
    """Kill this process as soon as a line that ``kill_at`` stands in is logged."""

    def log(message: str) -> None:
        if kill_at in message:
            os.kill(os.getpid(), signal.SIGKILL)

    HealingCase(root).heal(options, log)
