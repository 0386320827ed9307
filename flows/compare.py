"""The compare flow: two checkpoints side by side on a recipe's data and metrics."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from prefect import flow

from layerwright.flows.convert import tracking_uri
from layerwright.flows.requalify import base_of, measured
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.comparison import SideBySideRun
from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.items import read_items
from layerwright.tasks.contracts.references import CheckpointRef, TreeRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.gate.side_by_side import compare_arms
from layerwright.tasks.orchestration.place import Place, Run
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.register.versions import Address, checkpoint_of, named_version
from layerwright.tasks.tracking import connect, refuse_missing

LINEAGE = "layerwright.json"


@flow(name="compare", flow_run_name="{run_id}", validate_parameters=False)
def compare(
    recipe: Recipe, pins: dict[str, str], run_id: str, place: Place, a: str, b: str
) -> SideBySideRun:
    """fetch, evaluate, and the paired statistics of B against A.

    Args:
        a, b: ``NAME@alias``, ``NAME/version``, a checkpoint's folder, or a run.

    Raises:
        InputError: one of them is not there, or they were made from different bases.
    """
    assert recipe.gate is not None  # checked before it started
    run = Run(place)
    one, other = (named_checkpoint(name, recipe, place) for name in (a, b))
    if one.base_sha256 != other.base_sha256:
        raise InputError(
            f"{a} was made from the base {one.base_sha256}, {b} from {other.base_sha256}",
            expected="two checkpoints of one base: another's tokens are other items",
        )
    base = base_of(other, recipe, pins, run)
    beside = Champion(version=a, checkpoint=one)
    report = measured(recipe, pins, base, other, beside, run)
    store = place.open_store()
    items = read_items(store.open_tree(report.items.sha256)) if report.items else ()
    found = compare_arms(
        report,
        items,
        significance=recipe.gate.significance,
        min_items=recipe.gate.min_items,
        seed=place.seed,
    )
    result = SideBySideRun(
        **dict(found),
        run_id=run_id,
        a=a,
        b=b,
        checkpoints={"A": _tree(one), "B": _tree(other)},
        base_sha256=base.sha256,
        seconds={step: round(spent, 2) for step, spent in run.seconds.items()},
        cache_hits=run.cache_hits,
    )
    folder = RunFolder(Path(place.home), run_id)
    folder.write("evaluation.json", report.model_dump_json(indent=1))
    folder.write("comparison.json", result.model_dump_json(indent=1))
    folder.finish("compared")
    return result


def named_checkpoint(name: str, recipe: Recipe, place: Place) -> CheckpointRef:
    """What a user names, as a checkpoint in the run's store.

    A folder elsewhere is taken into the store as a copy.

    Raises:
        InputError: there is no such checkpoint, or it was not made by Layerwright.
    """
    if Path(name).is_dir():
        return _taken_in(Path(name), place)
    if "@" in name or "/" in name:
        uri = tracking_uri(recipe, place.home)
        refuse_missing(uri)
        with connect(uri) as client:
            return checkpoint_of(named_version(client, Address.parse(name)))
    try:
        summary = RunFolder.find(Path(place.home), name).summary()
    except InputError as error:
        raise InputError(
            f"{name!r} is no folder, version or run",
            expected="NAME@alias, NAME/version, a checkpoint's folder, or a run id",
        ) from error
    if summary is None:
        raise InputError(f"run {name} has no checkpoint", remedy=f"layerwright resume {name}")
    tree = TreeRef.model_validate(summary["checkpoint"])
    return _reference(tree, place.open_store().open_tree(tree.sha256))


def _taken_in(folder: Path, place: Place) -> CheckpointRef:
    if not (folder / LINEAGE).is_file():
        raise InputError(
            f"{folder} has no {LINEAGE}",
            expected="a converted checkpoint, as `layerwright convert` or `export` writes it",
        )
    Path(place.home).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="compare-", dir=place.home) as scratch:
        copy = shutil.copytree(folder, Path(scratch) / "checkpoint")
        tree = place.open_store().put_tree(copy)
    return _reference(tree, folder)


def _reference(tree: TreeRef, folder: Path) -> CheckpointRef:
    lineage = json.loads((folder / LINEAGE).read_bytes())
    return CheckpointRef(
        **tree.model_dump(),
        base_sha256=lineage["base"]["sha256"],
        plan_sha256=lineage["plan_sha256"],
    )


def _tree(checkpoint: CheckpointRef) -> TreeRef:
    return TreeRef(uri=checkpoint.uri, sha256=checkpoint.sha256, bytes=checkpoint.bytes)
