"""Plan and base checkpoint -> hybrid checkpoint, one tensor at a time."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig

from tasks.context import Context
from tasks.contracts import CheckpointRef, ConversionPlan, ModelRef, identity
from tasks.errors import InputError
from tasks.hybrid.export import write_hybrid
from tasks.progress import progress
from tasks.store import MANIFEST
from tasks.strategies.base import Strategy
from tasks.strategies.specs import specs_of, strategies_of

LINEAGE = "layerwright.json"
WRITTEN_HERE = {"config.json", MANIFEST, "source.json"}
LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+)$")


def convert_model(model: ModelRef, plan: ConversionPlan, ctx: Context) -> CheckpointRef:
    """Write the hybrid checkpoint that a plan describes.

    A file of weights in which no strategy changes a tensor is copied byte by byte; another is
    rewritten with its tensors mapped from disk one by one. The result depends on base and plan
    alone: the same inputs give the same digest, whatever was interrupted before.

    Raises:
        InputError: the plan is for another model, or its family is not supported.
    """
    _check_fits(model, plan)
    source = ctx.store.open_tree(model.sha256)
    target = ctx.folder("checkpoint")
    try:
        write_hybrid(target, AutoConfig.from_pretrained(source), specs_of(plan))
    except ValueError as error:
        raise InputError(
            str(error),
            where="model",
            remedy="`layerwright methods` lists the families that can be converted",
        ) from error
    strategies = strategies_of(plan)
    files = sorted(p for p in source.iterdir() if p.is_file() and p.name not in WRITTEN_HERE)
    with progress() as bar:
        job = bar.add_task("convert", total=len(files))
        for file in files:
            if file.suffix == ".safetensors":
                write_weights(file, target / file.name, strategies)
            else:
                shutil.copyfile(file, target / file.name)
            bar.advance(job)
    plan_sha256 = identity(plan)
    (target / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n")
    lineage = {
        "base": {"source": _public(model.source), "sha256": model.sha256},
        "plan_sha256": plan_sha256,
    }
    (target / LINEAGE).write_text(json.dumps(lineage, indent=1) + "\n")
    tree = ctx.store.put_tree(target)
    return CheckpointRef(**tree.model_dump(), base_sha256=model.sha256, plan_sha256=plan_sha256)


def _check_fits(model: ModelRef, plan: ConversionPlan) -> None:
    if plan.model_sha256 != model.sha256:
        raise InputError(
            f"the plan is for the model {plan.model_sha256[:12]}, not {model.sha256[:12]}",
            where="plan model_sha256",
            expected=model.sha256,
            remedy="choose a plan for this model, or set model_sha256 if the layers are the same",
        )
    if plan.layers != model.layers:
        raise InputError(
            f"the plan covers {plan.layers} layers",
            where="plan layers",
            expected=f"{model.layers}, as the model has",
        )


def _public(source: str) -> str:
    """The source without the folders of this machine: a checkpoint travels."""
    scheme, colon, rest = source.partition(":")
    if colon and scheme != "local":
        return source
    return f"local:{PurePath(rest or scheme).name}"


def write_weights(source: Path, target: Path, strategies: list[Strategy]) -> None:
    """One safetensors file with each layer's tensors as its strategy wants them."""
    changed: dict[str, Callable[[Tensor], Tensor]] = {}
    with safe_open(source, framework="pt") as weights:
        metadata = weights.metadata()
        names = list(weights.keys())
        for name in names:
            match = LAYER.match(name)
            strategy = strategies[int(match[1])] if match else None
            if strategy is None or type(strategy).transform is Strategy.transform:
                continue  # the default is the very same tensor
            layer, inner = int(match[1]), match[2]
            changed[name] = lambda t, s=strategy, n=inner, i=layer: s.transform(n, t, i)
        if not changed:
            shutil.copyfile(source, target)
            return
        tensors = {}
        for name in names:
            tensor = weights.get_tensor(name)
            tensors[name] = changed[name](tensor).contiguous() if name in changed else tensor
        save_file(tensors, target, metadata=metadata)
