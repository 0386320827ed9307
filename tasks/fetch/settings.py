"""Copy a checkpoint's config, tokenizer and license, the same in every fetch of the model."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.sources.source import one_line

# fields that record who wrote the file, and where; they do not describe the model
_NOISE = {
    "config.json": "_name_or_path _model_name_or_path transformers_version auto_map",
    "generation_config.json": "_from_model_config transformers_version",
    "tokenizer_config.json": "name_or_path is_local local_files_only transformers_version auto_map",
}
_COPIED = (
    "config.json generation_config.json tokenizer.json tokenizer_config.json "
    "special_tokens_map.json added_tokens.json tokenizer.model vocab.json merges.txt vocab.txt "
    "chat_template.jinja chat_template.json LICENSE LICENSE.txt LICENSE.md"
)


def read_config(folder: Path) -> PretrainedConfig:
    """Read the config of a folder, and check that it is a decoder with unquantised weights;
    InputError if the model type is unknown to Transformers, quantised, or not a decoder.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # config classes check their fields with different exceptions
        raise InputError(
            f"config.json cannot be used: {one_line(error)}",
            expected="a model type that Transformers supports without remote code",
        ) from error
    if getattr(config, "quantization_config", None):
        raise InputError(
            "config.json says that the weights are quantised (quantization_config)",
            expected="weights in float32, bfloat16 or float16, or a GGUF file",
        )
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    missing = [name for name in needed if getattr(config, name, None) is None]
    if missing:
        raise InputError(
            f"config.json ({config.model_type}) has no {', '.join(missing)}",
            expected="a decoder-only language model",
        )
    return config


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read a folder's tokenizer, without network access; InputError if Transformers cannot."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise InputError(
            f"the tokenizer cannot be read: {one_line(error)}",
            expected="tokenizer files that Transformers reads without remote code",
        ) from error


def copy_settings(source: Path, folder: Path) -> None:
    """Copy the config, tokenizer and license of a safetensors checkpoint. A slow tokenizer is
    converted to a fast tokenizer. InputError if the tokenizer cannot be read.
    """
    for name in _COPIED.split():
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if not (source / "tokenizer.json").is_file():
        read_tokenizer(source).save_pretrained(folder)


def normalise(folder: Path, **changes: Any) -> None:
    """Rewrite the JSON files with sorted keys and without the fields that vary between fetches.

    ``changes`` are written to config.json. A folder without generation_config.json gets the
    generation config that its config implies. InputError if a file is not a JSON object.
    """
    if not (folder / "generation_config.json").is_file():
        GenerationConfig.from_model_config(read_config(folder)).save_pretrained(folder)
    for name, noise in _NOISE.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name} is not JSON: {error}") from error
        if not isinstance(settings, dict):
            raise InputError(f"{name} is not a JSON object", expected="a JSON object")
        settings = {key: value for key, value in settings.items() if key not in noise.split()}
        if name == "config.json":
            settings.pop("torch_dtype", None)  # the name of `dtype` before Transformers 5
            settings |= changes
        text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
