"""Fetch a base model from its source and store it as a normalised checkpoint."""

from collections import Counter
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import ModelRef, TreeRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.gguf import dequantise, text_field
from layerwright.tasks.fetch.provenance import license_of, record_files
from layerwright.tasks.fetch.settings import copy_settings, normalise, read_config, read_tokenizer
from layerwright.tasks.fetch.sources import model_source
from layerwright.tasks.fetch.sources.source import names_in
from layerwright.tasks.fetch.weights import STORED, read_headers, same_values, write_weights
from layerwright.tasks.models.weight_files import StoredTensor
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.base import Store
from layerwright.tasks.store.manifest import MANIFEST


def fetch_model(
    source: ModelSource, ctx: Context, data_root: str | None = None, pin: str = ""
) -> ModelRef:
    """Store a model as safetensors, config, tokenizer and chat template.

    Safetensors files that already have the requested dtype are copied without being loaded. Other
    dtypes are converted tensor by tensor. GGUF is dequantised. Fields that differ between two
    fetches of the same model (paths, versions) are removed, so that both have the same digest.
    Downloaded files stay in the step's workdir, so a fetch that was killed resumes there.

    Args:
        data_root: folder that relative local paths start from.
        pin: identity of the source, a part of the cache key.

    InputError if the source does not exist, or its model cannot be used: it has no config or
    tokenizer, its weights are pickled or quantised, or its tensors do not fit the config. StepError
    if a download failed.
    """
    ctx.log(f"fetching {source.source}")
    files = model_source(source, data_root).fetch(ctx.workdir / "source")
    names = names_in(files)
    folder = ctx.folder("model")
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        ctx.log(f"dequantising {ggufs[0]}")
        dequantise(files / ggufs[0], folder, source.dtype)
        license = text_field(files / ggufs[0], "general.license")
        normalise(folder)
    else:
        ctx.log(f"copying {len(names)} files of {source.source}")
        weights = [files / name for name in names if name.endswith(".safetensors")]
        license = license_of(weights[0].parent)
        _copy(weights, weights[0].parent, folder, None if source.dtype == "auto" else source.dtype)
    record_files(folder, source.source, files, names, license)
    described = describe(folder)
    return _reference(ctx.store.put_tree(folder), source.source, described)


def stored_model(sha256: str, store: Store, source: str) -> ModelRef:
    """The reference of a base model in the store; ``source`` is recorded, not read. IntegrityError
    if the store does not have the tree.
    """
    folder = store.open_tree(sha256)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    size -= (folder / MANIFEST).stat().st_size
    tree = TreeRef(uri=store.tree_uri(sha256), sha256=sha256, bytes=size)
    return _reference(tree, source, describe(folder))


def describe(folder: Path) -> tuple[PretrainedConfig, dict[str, StoredTensor]]:
    """Check that a normalised checkpoint loads; return its config and tensor headers. InputError if
    the tokenizer cannot be read, or has more tokens than the model.
    """
    config, tokens = read_config(folder), len(read_tokenizer(folder))
    if tokens > config.vocab_size:
        raise InputError(
            f"the tokenizer has {tokens} tokens, but the model has {config.vocab_size}",
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


def _fitting(config: PretrainedConfig, tensors: dict[str, StoredTensor]) -> tuple[list[str], bool]:
    """Return the tensors that the architecture uses, and whether its embeddings are tied.

    If the checkpoint stores both embeddings and they are equal, only the original is kept. If they
    differ, they are not tied, even if the config says so: Transformers loads them untied.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # modules check their arguments with different exceptions
        raise InputError(
            f"Transformers cannot build a model from config.json ({config.model_type}): {error}",
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
    tied_too = {name for pair in copies.items() if set(pair) & set(keep) for name in pair}
    if missing := sorted(set(shapes) - set(keep) - tied_too):
        raise InputError(
            f"the weights lack {len(missing)} tensors of {config.model_type}; the first is "
            f"{missing[0]}",
            expected="a complete checkpoint that fits its config.json",
        )
    for name in keep:
        if tensors[name].shape != shapes[name]:
            raise InputError(
                f"{name} has shape {tensors[name].shape}, but config.json implies {shapes[name]}",
                expected="a checkpoint that fits its config.json",
            )
    return keep, tied


def _main_dtype(tensors: dict[str, StoredTensor]) -> str:
    elements: Counter[str] = Counter()
    for tensor in tensors.values():
        elements[tensor.dtype] += tensor.elements
    return str(STORED[elements.most_common(1)[0][0]]).removeprefix("torch.")


def _reference(
    tree: TreeRef, source: str, described: tuple[PretrainedConfig, dict[str, StoredTensor]]
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
