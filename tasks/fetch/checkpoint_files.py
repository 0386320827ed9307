"""Select the files of a source's checkpoint by their names alone, before any download."""

import re
from pathlib import PurePosixPath

from layerwright.tasks.errors import InputError

_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})


def pick_checkpoint(source: str, names: list[str]) -> list[str]:
    """Return the files of the safetensors checkpoint, or the single GGUF file.

    The files are those of one folder, without its subfolders. The weights are those that
    Transformers would load: ``model.safetensors``, else its shards, else all safetensors files.
    InputError if the source has several checkpoints, or its checkpoint lacks the config, the
    tokenizer or a shard.
    """
    folders: dict[str, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        folders.setdefault(str(path.parent), set()).add(path.name)
    weights = {f: [n for n in files if n.endswith(".safetensors")] for f, files in folders.items()}
    checkpoints = [f for f in folders if weights[f] and "config.json" in folders[f]]
    if "." in checkpoints:  # checkpoints in subfolders are variants of it
        checkpoints = ["."]
    if not checkpoints:
        ggufs = [name for name in names if name.endswith(".gguf")]
        if len(ggufs) == 1:
            return ggufs
        if ggufs:
            raise _ambiguous(source, ggufs)
        folder = next(f for f in folders if weights[f])
        raise _lacking(source, "config.json" + _no_tokenizer(folders[folder]))
    if len(checkpoints) > 1:
        raise _ambiguous(source, checkpoints)
    folder, files = checkpoints[0], folders[checkpoints[0]]
    if lacks := _no_tokenizer(files):
        raise _lacking(source, lacks.removeprefix(" and "))
    chosen = _weights(source, sorted(weights[folder]))
    kept = [n for n in files if n in chosen or not n.endswith((".safetensors", ".gguf"))]
    return sorted(str(PurePosixPath(folder) / name) for name in kept)


def _weights(source: str, names: list[str]) -> list[str]:
    if "model.safetensors" in names:
        return ["model.safetensors"]
    shards = {int(m[1]): (n, int(m[2])) for n in names if (m := _SHARD.fullmatch(n))}
    if not shards:
        return names
    count = max(total for _, total in shards.values())
    for number in range(1, count + 1):
        if number not in shards:
            raise _lacking(source, f"shard {number} of {count} of its weights")
    return [name for name, _ in shards.values()]


def _no_tokenizer(files: set[str]) -> str:
    return "" if any(needed <= files for needed in _TOKENIZERS) else " and a tokenizer"


def _lacking(source: str, what: str) -> InputError:
    return InputError(
        f"{source} lacks {what}",
        expected="safetensors with config.json and tokenizer.json (or tokenizer.model, or "
        "vocab.json and merges.txt), or a GGUF file, which holds all three",
    )


def _ambiguous(source: str, models: list[str]) -> InputError:
    return InputError(
        f"{source} holds {len(models)} models: {', '.join(sorted(models)[:8])}",
        expected="one model",
        remedy="add the path of the model to the source, or copy the model to a separate folder",
    )
