"""Export a checkpoint as a model of Transformers' own classes, if its layers allow it."""

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from layerwright.tasks.contracts.checkpoint import Exported
from layerwright.tasks.errors import InputError
from layerwright.tasks.export.agreement import assert_agreement
from layerwright.tasks.export.checkpoint import CONFIG, MANIFEST, Checkpoint
from layerwright.tasks.export.folder import copy_files, new_folder
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.families import COPIED_FIELDS, FAMILIES
from layerwright.tasks.hybrid.stock import REMOVED, SINK_LOGITS, layer_window
from layerwright.tasks.models.weight_files import INDEX, write_index
from layerwright.tasks.progress import progress

LAYER = re.compile(r"^model\.layers\.(\d+)\.")
NO_SINK = -1e4  # exp of it is 0 beside any score, in every dtype
REWRITTEN = (CONFIG, INDEX, MANIFEST, "*.safetensors", "*.py", "plan.json")


def export_stock(folder: Path, target: Path, readme: str | None = None) -> Exported:
    """Writes a checkpoint as a stock model and compares the logits of the two.

    Raises:
        InputError: the folder has no converted checkpoint, no stock class supports its layers, or
            ``target`` exists.
        IntegrityError: the stock model does not compute the checkpoint's logits.
    """
    checkpoint = Checkpoint.open(folder)
    check_form(checkpoint.config)
    with new_folder(target, readme) as partial:
        stock = write_stock(checkpoint, partial)
        difference = assert_agreement(folder, checkpoint.config, partial)
    return Exported(
        to="stock",
        folder=str(target),
        model_type=stock.model_type,
        layers=stock.num_hidden_layers,
        relative_rms=difference,
    )


def check_form(config: HybridConfig) -> None:
    """Raise InputError, which names all obstacles, if no stock class supports these layers."""
    if obstacles := _stock_form(config)["obstacles"]:
        raise InputError(
            "no class of Transformers supports this checkpoint:"
            + "".join(f"\n    {line}" for line in obstacles),
            expected="only layers with full attention, removed layers, and windows of one size "
            "without sink tokens (the strategy window)",
            remedy="serve it with its own code (--to transformers), or convert with a plan of "
            "such layers",
        )


def write_stock(checkpoint: Checkpoint, target: Path) -> PretrainedConfig:
    """Write the stock form into an empty folder, without checking it; return its config."""
    copy_files(checkpoint.folder, target, left_out=REWRITTEN)
    config = stock_config(checkpoint.config)
    config.save_pretrained(target)
    numbers = layer_numbers(checkpoint.config)
    names = {name: new_name(name, numbers) for name in checkpoint.tensors}
    files = sorted({tensor.file for tensor in checkpoint.tensors.values()})
    added = missing_tensors(config, {name for name in names.values() if name})
    with progress() as bar:
        job = bar.add_task("write weights", total=len(files))
        for file in files:
            write_renamed(file, target / file.name, names, added if file == files[-1] else {})
            bar.advance(job)
    if len(files) > 1:
        kept = {new: checkpoint.tensors[old] for old, new in names.items() if new}
        places = {name: tensor.file.name for name, tensor in kept.items()}
        total = sum(t.nbytes for t in kept.values()) + sum(t.nbytes for t in added.values())
        write_index(target, places | dict.fromkeys(added, files[-1].name), total)
    return config


def stock_config(config: HybridConfig) -> PretrainedConfig:
    """The config of the stock form: without the removed layers, and with the layers' window."""
    model_type = _stock_form(config)["model_type"]
    family = FAMILIES[config.base_model_type]
    windows = [layer_window(spec) for spec in config.layer_specs or [] if spec != REMOVED]
    window = max((w for w in windows if w is not None), default=None)
    fields = {name: getattr(config, name) for name in COPIED_FIELDS}
    fields |= {"num_hidden_layers": len(windows), "sliding_window": window}
    fields |= {
        field: getattr(config, ours)
        for ours in ("attention_bias", "mlp_bias")
        if isinstance(field := getattr(family, ours), str)
    }
    if model_type != "qwen2" or config.head_dim * config.num_attention_heads != config.hidden_size:
        fields["head_dim"] = config.head_dim  # Qwen2 has no such field if it equals the quotient
    if model_type in ("qwen2", "qwen3"):
        fields |= {"use_sliding_window": window is not None, "max_window_layers": len(windows)}
    if window is not None and model_type != "mistral":
        fields["layer_types"] = [
            "full_attention" if w is None else "sliding_attention" for w in windows
        ]
    if model_type == "llama":
        del fields["sliding_window"]
    if model_type == SINK_LOGITS:
        fields |= {
            "attention_multiplier": config.head_dim**-0.5,
            "attention_bias": config.attention_bias,  # also of the output projection
            "mlp_bias": config.mlp_bias,
        }
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    return AutoConfig.for_model(model_type, architectures=[architecture], **fields)


def missing_tensors(config: PretrainedConfig, names: set[str]) -> dict[str, Tensor]:
    """Tensors that the stock class has beside those of the checkpoint, with no effect.

    GraniteSWA has a sink logit in every layer, and a bias on the output projection of every layer
    if there is one on queries, keys and values.
    """
    if config.model_type != SINK_LOGITS:
        return {}
    heads, width = config.num_attention_heads, config.hidden_size
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    added = {}
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}.self_attn."
        added[prefix + "sinks"] = torch.full((heads,), NO_SINK, dtype=dtype)
        if config.attention_bias:
            added[prefix + "o_proj.bias"] = torch.zeros(width, dtype=dtype)
    return {name: tensor for name, tensor in added.items() if name not in names}


def layer_numbers(config: HybridConfig) -> dict[int, int]:
    """The new index of each layer that is not removed, by its old index."""
    kept = [i for i, spec in enumerate(config.layer_specs or []) if spec != REMOVED]
    return {old: new for new, old in enumerate(kept)}


def new_name(name: str, numbers: dict[int, int]) -> str | None:
    """A tensor's name after the layers are renumbered; None for a tensor of a removed layer."""
    match = LAYER.match(name)
    if match is None:
        return name
    new = numbers.get(int(match[1]))
    return None if new is None else f"model.layers.{new}.{name[match.end() :]}"


def write_renamed(
    source: Path, target: Path, names: dict[str, str | None], added: dict[str, Tensor]
) -> None:
    """Write a safetensors file with renamed and added tensors; copy it if nothing changes."""
    with safe_open(source, framework="pt") as weights:
        old_names = list(weights.keys())
        if not added and all(names[name] == name for name in old_names):
            shutil.copyfile(source, target)
            return
        tensors = {new: weights.get_tensor(old) for old in old_names if (new := names[old])}
        save_file(tensors | added, target, metadata=weights.metadata())
        target.chmod(0o644)  # safetensors writes files that only the owner can read


def _stock_form(config: HybridConfig) -> dict[str, Any]:
    """The entry on the stock form in the config's capabilities."""
    assert config.capabilities is not None  # HybridConfig derives them
    return config.capabilities["stock"]
