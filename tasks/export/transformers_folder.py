"""Export a checkpoint as a folder that Transformers loads with the code in that folder."""

from __future__ import annotations

from pathlib import Path

from layerwright.tasks.contracts.checkpoint import Exported
from layerwright.tasks.export.agreement import assert_agreement
from layerwright.tasks.export.checkpoint import MANIFEST, Checkpoint
from layerwright.tasks.export.folder import copy_files, new_folder


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
