"""A base model, from its source to a normalised checkpoint in the store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import ModelRef, TreeRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.gguf import dequantise
from layerwright.tasks.fetch.license import license_of
from layerwright.tasks.fetch.provenance import record_files
from layerwright.tasks.fetch.settings import copy_settings, normalise, read_config, read_tokenizer
from layerwright.tasks.fetch.sources import model_source
from layerwright.tasks.fetch.sources.source import names_in
from layerwright.tasks.fetch.weights import STORED, Tensor, read_headers, same_values, write_weights
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.base import Store
from layerwright.tasks.store.manifest import MANIFEST


def fetch_model(source: ModelSource, ctx: Context, data_root: str | None = None) -> ModelRef:
    """Bring a model into the store as safetensors, config, tokenizer and chat template.

    Safetensors in the wanted dtype are copied without being loaded; other dtypes are converted
    tensor by tensor; GGUF is dequantised. What varies between two fetches of the same model
    (paths, versions) is left out, so its digest does not.

    Args:
        source: where from, and the dtype of the weights (``auto``: as stored; GGUF: float32).
        ctx: what was downloaded stays in the workdir, so a killed fetch goes on.
        data_root: where relative local paths start.

    Raises:
        InputError: no such source, or not a model that can be used: no config or tokenizer,
            pickled or quantised weights, tensors that do not fit the config.
        StepError: a download failed.
    """
    ctx.log(f"fetching {source.source}")
    files = model_source(source, data_root).fetch(ctx.workdir / "source")
    names = names_in(files)
    folder = ctx.folder("model")
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        ctx.log(f"dequantising {ggufs[0]}")
        dequantise(files / ggufs[0], folder, source.dtype)
        license = license_of(files, files / ggufs[0])
        normalise(folder)
    else:
        ctx.log(f"copying {len(names)} files of {source.source}")
        weights = [files / name for name in names if name.endswith(".safetensors")]
        license = license_of(weights[0].parent)
        _copy(weights, weights[0].parent, folder, None if source.dtype == "auto" else source.dtype)
    record_files(folder, source.source, files, names, license)
    described = describe(folder)
    tree = ctx.store.put_tree(folder)
    return _reference(tree, source.source, described)


def stored_model(sha256: str, store: Store, source: str) -> ModelRef:
    """A base model that is in the store already.

    Args:
        sha256: of its tree.
        source: where it was fetched from, for people.

    Raises:
        IntegrityError: the store does not have it.
    """
    folder = store.open_tree(sha256)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    size -= (folder / MANIFEST).stat().st_size
    tree = TreeRef(uri=store.tree_uri(sha256), sha256=sha256, bytes=size)
    return _reference(tree, source, describe(folder))


def describe(folder: Path) -> tuple[PretrainedConfig, dict[str, Tensor]]:
    """Config and tensor headers of a normalised checkpoint, after checking that all of it loads.

    Raises:
        InputError: the tokenizer cannot be read or has more tokens than the model.
    """
    config = read_config(folder)
    tokenizer = read_tokenizer(folder)
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}",
            expected="the tokenizer of this model",
        )
    return config, read_headers(sorted(folder.glob("*.safetensors")))


def _copy(weights: list[Path], source: Path, folder: Path, dtype: str | None) -> None:
    copy_settings(source, folder)
    config = read_config(folder)
    tensors = read_headers(weights)
    keep, tied = _fitting(config, tensors)
    write_weights(tensors, keep, folder, dtype)
    normalise(folder, dtype=dtype or _main_dtype(tensors), tie_word_embeddings=tied)


def _fitting(config: PretrainedConfig, tensors: dict[str, Tensor]) -> tuple[list[str], bool]:
    """The tensors that the architecture has, and whether its embeddings are tied.

    Stored embeddings that are equal are stored once. Where they differ they are not tied,
    whatever the config says: Transformers loads them so.

    Raises:
        InputError: a tensor is missing or has another shape than the config asks for.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # modules check their own arguments, each in its way
        raise InputError(
            f"no model can be made of config.json ({config.model_type}): {error}",
            expected="a config whose fields fit each other",
        ) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    copies = model.all_tied_weights_keys  # {lm_head.weight: model.embed_tokens.weight}
    keep = [name for name in tensors if name in shapes]
    tied = bool(getattr(config, "tie_word_embeddings", False))
    for copy, original in copies.items():
        if copy in tensors and original in tensors:
            if same_values(tensors, copy, original):
                keep.remove(copy)
            else:
                tied = False
    stored = set(keep) | {c for c, o in copies.items() if o in keep}
    stored |= {o for c, o in copies.items() if c in keep}
    missing = sorted(set(shapes) - stored)
    if missing:
        raise InputError(
            f"the weights lack {len(missing)} of the {config.model_type}'s tensors: {missing[0]}",
            expected="a whole checkpoint that fits its config.json",
        )
    for name in keep:
        if tensors[name].shape != shapes[name]:
            raise InputError(
                f"{name} has shape {tensors[name].shape}, but config.json asks for {shapes[name]}",
                expected="a checkpoint that fits its config.json",
            )
    return keep, tied


def _main_dtype(tensors: dict[str, Tensor]) -> str:
    elements: Counter[str] = Counter()
    for tensor in tensors.values():
        elements[tensor.dtype] += tensor.elements
    return str(STORED[elements.most_common(1)[0][0]]).removeprefix("torch.")


def _reference(
    tree: TreeRef, source: str, described: tuple[PretrainedConfig, dict[str, Tensor]]
) -> ModelRef:
    config, tensors = described
    heads = config.num_attention_heads
    return ModelRef(
        **tree.model_dump(),
        source=source,
        family=config.model_type,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        max_positions=config.max_position_embeddings,
        parameters=sum(tensor.elements for tensor in tensors.values()),
        dtype=_main_dtype(tensors),
    )
