"""A base, its converted checkpoint and a text in a store. Run as a script, it heals and may die.

    python healing_case.py ROOT KILL_AT_STEP

kills its own process with SIGKILL as soon as that step is logged.
"""

import json
import os
import signal
import sys
from pathlib import Path

from tiny import tiny_llama_config
from tiny_checkpoint import write_checkpoint

from tasks.context import Context
from tasks.contracts import CheckpointRef, FinetuneReport, ModelRef, TextRef
from tasks.finetune.healing import finetune_model
from tasks.hybrid.export import write_hybrid
from tasks.recipe import FinetuneOptions
from tasks.store import LocalStore

STREAMING = {"mixer": {"kind": "streaming", "sinks": 1, "window": 6}}
FULL = {"mixer": {"kind": "full"}}
LAYERS = 4
TEXT = "The baker sold a basket of apples by the river, and nobody seemed to mind. " * 4
OPTIONS = FinetuneOptions(
    text="english",
    steps=24,
    row_tokens=32,
    rows_per_step=2,
    learning_rate=2e-2,
    warmup_steps=2,
    next_token_weight=0.1,
    rank=4,
    alpha=8,
    checkpoint_every=4,
)


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

    def text(self, text: str = TEXT) -> TextRef:
        folder = self.root / "text"
        folder.mkdir()
        (folder / "documents.jsonl").write_text(json.dumps({"text": text}) + "\n")
        tree = self.store.put_tree(folder)
        return TextRef(**tree.model_dump(), source="tiny", documents=1, characters=len(text))

    def heal(self, log=None, text: str = TEXT, **changed) -> FinetuneReport:
        context = Context(
            store=self.store, workdir=self.root / "work", seed=7, log=log or self.log.append
        )
        context.workdir.mkdir(exist_ok=True)
        options = OPTIONS.model_copy(update=changed)
        return finetune_model(self.base, self.checkpoint, self.text(text), options, context)


def main(root: str, kill_at_step: str) -> None:
    def log(message: str) -> None:
        if f"step {kill_at_step} of" in message:
            os.kill(os.getpid(), signal.SIGKILL)

    HealingCase(Path(root)).heal(log)


if __name__ == "__main__":
    main(*sys.argv[1:])
