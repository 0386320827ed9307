"""Tiny random models, a byte tokenizer and texts, as the metrics see them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny import LAYERS, VOCABULARY, tiny_llama
from tiny_checkpoint import byte_tokenizer
from tiny_text import write_text

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.evaluate.arms import ArmModel, Arms
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.passes import Texts
from layerwright.tasks.evaluate.suite import needed_passes
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.progress import progress
from layerwright.tasks.store.local import LocalStore

STREAMING = {"mixer": {"kind": "streaming", "sinks": 2, "window": 6}}


def build_hybrid(streaming: tuple[int, ...] = (), seed: int = 0) -> HybridForCausalLM:
    """The tiny Llama as a hybrid model, some of its layers streaming."""
    base = tiny_llama(seed)
    model = HybridForCausalLM(from_base_config(base.config))
    model.load_state_dict(base.state_dict())
    for layer in streaming:
        model.set_layer_spec(layer, STREAMING)
    return model.eval()


@pytest.fixture
def hybrid() -> Callable[..., HybridForCausalLM]:
    return build_hybrid


@pytest.fixture
def english(tmp_path: Path) -> Path:
    words = ["the", "fog", "lay", "over", "fields", "while", "an", "old", "fisherman", "mended"]
    return write_text(tmp_path / "english", " ".join(words[i * i % 7 + i % 4] for i in range(300)))


@pytest.fixture
def make_arms(tmp_path: Path, english: Path) -> Callable[..., Arms]:
    """``make_arms(metrics, candidate=model)``; the base is ``hybrid()`` unless given."""

    def make(metrics: list[Metric], texts: dict[str, Path] | None = None, **models) -> Arms:
        models = {"base": build_hybrid(), **models}
        loaders: dict[Arm, ArmModel] = {
            arm: ArmModel(arm, lambda model=model: model) for arm, model in models.items()
        }
        opened = Texts(texts or {"english": english}, byte_tokenizer)
        context = Context(store=LocalStore(tmp_path / "store"), workdir=tmp_path / "work")
        return Arms(loaders, opened, needed_passes(metrics), context, progress())

    return make


@pytest.fixture
def values() -> Callable[..., dict]:
    """``values(metric, arms)``: measurements by (name, arm)."""
    return lambda metric, arms: {
        (m.metric, m.arm): m for m in (figure.measurement for figure in metric.measure(arms))
    }


@dataclass
class Stored:
    """Trees of the context's store."""

    base: ModelRef
    candidate: CheckpointRef
    texts: dict[str, TextRef]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(store=LocalStore(tmp_path / "store"), workdir=tmp_path / "workdir")


@pytest.fixture
def stored(tmp_path: Path, context: Context, english: Path) -> Stored:
    """The tiny base, a candidate with two streaming layers, and two texts."""
    trees = {}
    for name, model in {"base": tiny_llama(), "candidate": build_hybrid((0, 2))}.items():
        model.save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
        trees[name] = context.store.put_tree(tmp_path / name).model_dump()
    write_text(tmp_path / "other", "quite another text, of which no words are in the first " * 5)
    base = ModelRef(
        **trees["base"],
        source="tiny",
        family="llama",
        layers=LAYERS,
        hidden_size=48,
        kv_heads=2,
        head_dim=8,
        vocabulary=VOCABULARY,
        max_positions=512,
        parameters=0,
        dtype="float32",
    )
    candidate = CheckpointRef(**trees["candidate"], base_sha256=base.sha256, plan_sha256="0" * 64)
    texts = {
        name: TextRef(
            **context.store.put_tree(tmp_path / name).model_dump(),
            source="test",
            documents=1,
            characters=1,
        )
        for name in ("english", "other")
    }
    return Stored(base, candidate, texts)


class Forwards(list):
    """One entry per pass of any hybrid model, at its embeddings; ``limit`` ends the one after."""

    limit: int | None = None

    def count(self, module: torch.nn.Module, arguments: object) -> None:
        if isinstance(module, torch.nn.Embedding):
            if len(self) == self.limit:
                raise KeyboardInterrupt
            self.append(1)


@pytest.fixture
def forwards() -> Iterator[Forwards]:
    seen = Forwards()
    hook = torch.nn.modules.module.register_module_forward_pre_hook(seen.count)
    yield seen
    hook.remove()
