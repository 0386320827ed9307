"""Find an existing checkpoint by the name that a user gives, and find its base."""

import json
import shutil
from pathlib import Path

from layerwright.flows.session.inputs import fetch_base
from layerwright.flows.session.runs import RunFolder
from layerwright.flows.session.session import Session
from layerwright.tasks.contracts.references import LINEAGE, CheckpointRef, ModelRef, TreeRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.model import stored_model
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.register.versions import Address, checkpoint_of, named_version
from layerwright.tasks.tracking import connect, refuse_missing


def named_checkpoint(name: str, place: Place) -> CheckpointRef:
    """A checkpoint in the run's store.

    ``name``: ``NAME@alias``, ``NAME/version``, a run, or a checkpoint's folder. A folder is copied
    into the store. InputError if there is no such checkpoint, or it was not made by Layerwright.
    """
    if Path(name).is_dir():
        return _copied_in(Path(name), place)
    if "@" in name or "/" in name:
        uri = place.tracking_uri or place.paths.tracking_uri
        refuse_missing(uri)
        with connect(uri) as client:
            return checkpoint_of(named_version(client, Address.parse(name)))
    try:
        summary = RunFolder.find(place.paths, name).summary()
    except InputError as error:
        raise InputError(
            f"{name!r} is not a folder, a version or a run",
            expected="NAME@alias, NAME/version, a checkpoint's folder, or a run id",
        ) from error
    if summary is None:
        raise InputError(f"run {name} has no checkpoint", remedy=f"layerwright resume {name}")
    tree = summary.checkpoint
    return _reference(tree, place.open_store().open_tree(tree.sha256))


def base_of(checkpoint: CheckpointRef, session: Session) -> ModelRef:
    """The base that a checkpoint was made from, from the store or fetched by the recipe; InputError
    if the store lacks the checkpoint, or the recipe has another model.
    """
    store = session.open_store()
    if not store.has_tree(checkpoint.sha256):
        raise InputError(
            f"the store {store.uri} does not have {checkpoint.uri}",
            where="store",
            remedy="name the store that the version was registered from",
        )
    if store.has_tree(checkpoint.base_sha256):
        lineage = store.open_tree(checkpoint.sha256) / LINEAGE
        source = json.loads(lineage.read_bytes())["base"]["source"]
        return stored_model(checkpoint.base_sha256, store, source)
    model = fetch_base(session)
    if model.sha256 != checkpoint.base_sha256:
        raise InputError(
            f"the checkpoint was made from the base {checkpoint.base_sha256}, which the store "
            f"does not have; {model.source} is {model.sha256}",
            where="model.source",
            remedy="name the base that it was made from, with its dtype",
        )
    return model


def common_base(a: CheckpointRef, b: CheckpointRef, session: Session) -> ModelRef:
    """The base of two checkpoints; InputError if they have different ones (see also `base_of`)."""
    if a.base_sha256 != b.base_sha256:
        raise InputError(
            f"A was made from the base {a.base_sha256}, B from {b.base_sha256}",
            expected="two checkpoints of the same base, because both must see the same tokens",
        )
    return base_of(b, session)


def _copied_in(folder: Path, place: Place) -> CheckpointRef:
    if not (folder / LINEAGE).is_file():
        raise InputError(
            f"{folder} has no {LINEAGE}",
            expected="a converted checkpoint, as `layerwright convert` or `export` writes it",
        )
    with place.paths.scratch("compare-") as scratch:
        tree = place.open_store().put_tree(shutil.copytree(folder, scratch / "checkpoint"))
    return _reference(tree, folder)


def _reference(tree: TreeRef, folder: Path) -> CheckpointRef:
    lineage = json.loads((folder / LINEAGE).read_bytes())
    return CheckpointRef(
        **tree.model_dump(),
        base_sha256=lineage["base"]["sha256"],
        plan_sha256=lineage["plan_sha256"],
    )
