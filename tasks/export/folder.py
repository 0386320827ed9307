"""Write exported folders atomically; export one that Transformers loads with the code in it."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwright.tasks.contracts.checkpoint import Exported
from layerwright.tasks.errors import InputError
from layerwright.tasks.export.agreement import assert_agreement
from layerwright.tasks.export.checkpoint import MANIFEST, Checkpoint

README = "README.md"


@contextmanager
def new_folder(target: Path, readme: str | None = None) -> Iterator[Path]:
    """A temporary folder, which gets a README.md and its name if the block succeeds.

    Raises:
        InputError: ``target`` exists and is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} already exists", expected="a new or empty folder for --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        yield partial
        if readme is not None:
            (partial / README).write_text(readme, encoding="utf-8")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_files(source: Path, target: Path, left_out: tuple[str, ...]) -> None:
    """Copy a folder's files, except those that match a pattern in ``left_out``.

    It makes no links, because editing an exported file must not change the store's tree.
    """
    for file in sorted(source.iterdir()):
        if file.is_file() and not any(file.match(pattern) for pattern in left_out):
            shutil.copyfile(file, target / file.name)


def export_transformers(folder: Path, target: Path, readme: str | None = None) -> Exported:
    """Copies a checkpoint, its own code included, and loads the copy as a serving host would.

    Raises:
        InputError: the folder has no converted checkpoint, or ``target`` exists.
        IntegrityError: the copy does not load, or does not compute the checkpoint's logits.
    """
    checkpoint = Checkpoint.open(folder)
    with new_folder(target, readme) as partial:
        copy_files(folder, partial, left_out=(MANIFEST,))
        difference = assert_agreement(folder, checkpoint.config, partial, trust_remote_code=True)
    return Exported(
        to="transformers",
        folder=str(target),
        model_type=checkpoint.config.model_type,
        layers=checkpoint.config.num_hidden_layers,
        relative_rms=difference,
    )
