"""Which files of a source make up its one checkpoint, judged by their names alone.

So a repository that cannot be used is refused before anything is downloaded, and only the files
of the checkpoint are.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from layerwright.tasks.errors import InputError

_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})


def pick_checkpoint(source: str, names: list[str]) -> list[str]:
    """The files of a safetensors checkpoint, or the one GGUF file.

    Args:
        source: for messages.
        names: the candidates, by path inside the source.

    Returns:
        The names of one folder (not of those below it), weights chosen as Transformers would:
        ``model.safetensors``, else its shards, else whatever safetensors there are.

    Raises:
        InputError: several checkpoints, or one that lacks config, tokenizer or shards.
    """
    folders: dict[str, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        folders.setdefault(str(path.parent), set()).add(path.name)
    weights = {f: [n for n in files if n.endswith(".safetensors")] for f, files in folders.items()}
    whole = [f for f in folders if weights[f] and "config.json" in folders[f]]
    if "." in whole:  # the checkpoint itself; those below it are variants
        whole = ["."]
    if not whole:
        ggufs = [name for name in names if name.endswith(".gguf")]
        if len(ggufs) == 1:
            return ggufs
        if ggufs:
            raise _ambiguous(source, ggufs)
        folder = next(f for f in folders if weights[f])
        raise _lacking(source, "config.json" + _no_tokenizer(folders[folder]))
    if len(whole) > 1:
        raise _ambiguous(source, whole)
    files = folders[whole[0]]
    if lacks := _no_tokenizer(files):
        raise _lacking(source, lacks.removeprefix(" and "))
    chosen = _weights(source, sorted(weights[whole[0]]))
    kept = [n for n in files if n in chosen or not n.endswith((".safetensors", ".gguf"))]
    return sorted(str(PurePosixPath(whole[0]) / name) for name in kept)


def _weights(source: str, names: list[str]) -> list[str]:
    if "model.safetensors" in names:
        return ["model.safetensors"]
    shards = {int(m[1]): (n, int(m[2])) for n in names if (m := _SHARD.fullmatch(n))}
    if not shards:
        return names
    count = max(total for _, total in shards.values())
    missing = [number for number in range(1, count + 1) if number not in shards]
    if missing:
        raise _lacking(source, f"shard {missing[0]} of {count} of its weights")
    return [name for name, _ in shards.values()]


def _no_tokenizer(files: set[str]) -> str:
    return "" if any(needed <= files for needed in _TOKENIZERS) else " and a tokenizer"


def _lacking(source: str, what: str) -> InputError:
    return InputError(
        f"{source} lacks {what}",
        expected="safetensors with config.json and tokenizer.json (or tokenizer.model, or "
        "vocab.json and merges.txt), or a GGUF file, which holds all three",
    )


def _ambiguous(source: str, found: list[str]) -> InputError:
    return InputError(
        f"{source} holds {len(found)} models: {', '.join(sorted(found)[:8])}",
        expected="one model",
        remedy="name one by its path inside the source, or copy it to a folder of its own",
    )
