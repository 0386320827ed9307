"""Find a checkpoint by its folder or its run, and export it."""

from __future__ import annotations

from pathlib import Path

from layerwright.flows.outcome.model_cards import facts_of_folder
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.checkpoint import Exported
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.report.model_card import Form, render_card
from layerwright.tasks.store.open import open_store


def checkpoint_folder(name: str, home: Home) -> Path:
    """The folder of a checkpoint.

    Args:
        name: a folder, or a run id, its beginning, or ``latest``.
        home: the home folder of the runs.

    Raises:
        InputError: ``name`` is neither a folder nor a run, or the run has no checkpoint.
        IntegrityError: the run's checkpoint is missing from the store, or damaged.
    """
    return _found(name, home)[0]


def _found(name: str, home: Home) -> tuple[Path, RunFolder | None]:
    """The checkpoint's folder, and its run if the user named a run."""
    if Path(name).is_dir():
        return Path(name), None
    try:
        folder = RunFolder.find(home, name)
    except InputError as error:
        raise InputError(f"{name!r} is not a folder, and {error.message}") from error
    summary = folder.summary()
    if summary is None:
        record = folder.record()
        raise InputError(
            f"run {record.run_id} has no checkpoint: it is {record.state} {record.reason}".rstrip(),
            remedy=f"layerwright resume {record.run_id}",
        )
    store, _, _ = summary.checkpoint.uri.rpartition("/trees/")
    trees = open_store(store, home.trees)
    return trees.open_tree(summary.checkpoint.sha256), folder


def export_checkpoint(name: str, home: Home, form: Form, target: Path) -> Exported:
    """Write a checkpoint into ``target`` in a form that serving engines load, with its card.

    Args:
        name: as for ``checkpoint_folder``; the evidence of a run is part of the card.
    """
    folder, run = _found(name, home)
    facts = facts_of_folder(folder, run)
    if form == "stock":
        from layerwright.tasks.export.stock import export_stock as export
    elif form == "gguf":
        from layerwright.tasks.export.gguf import export_gguf as export
    else:
        from layerwright.tasks.export.folder import export_transformers as export
    return export(folder, target, render_card(facts, form) if facts else None)
