"""Plan and base checkpoint -> hybrid checkpoint, one tensor at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path, PurePath

from torch import Tensor
from transformers import AutoConfig

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import LINEAGE, Calibration, CheckpointRef, ModelRef
from layerwright.tasks.convert.weights import INDEX, tensor_names, write_weights
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.export import write_hybrid
from layerwright.tasks.models.loading import base_config
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.batches import calibration_rows
from layerwright.tasks.passes.fitting import convert_in_place
from layerwright.tasks.progress import progress
from layerwright.tasks.store.manifest import MANIFEST
from layerwright.tasks.strategies.specs import Assignment, assignments_of, specs_of

SOURCE = "source.json"  # of the base: where its files came from
WRITTEN_HERE = {"config.json", MANIFEST, SOURCE, INDEX, LINEAGE}


def convert_model(
    model: ModelRef,
    plan: ConversionPlan,
    calibration: Calibration,
    ctx: Context,
    *,
    regularized: ModelRef | None = None,
) -> CheckpointRef:
    """Write the hybrid checkpoint that a plan describes.

    A file of weights in which nothing changes is copied byte by byte; another is rewritten with
    its tensors mapped from disk, never read as a whole. Where a strategy fits tensors, the base is
    loaded and converted first, within the step's bound of memory. The result depends on base, plan
    and, where something is fitted, the calibration rows: the same inputs give the same digest,
    whatever was interrupted before.

    Args:
        regularized: the base after training for this plan, whose weights are then taken and whose
            stream is fitted to; ``model`` stays what the checkpoint is compared with.

    Raises:
        InputError: the plan is for another model, its family is not supported, or a strategy
            cannot be fitted where the plan puts it.
    """
    _check_fits(model, plan)
    source = ctx.store.open_tree((regularized or model).sha256)
    target = ctx.folder("checkpoint")
    assignments = assignments_of(plan.items)
    base = base_config(source)
    specs = specs_of(assignments, base.layer_specs)
    try:
        config = write_hybrid(target, AutoConfig.from_pretrained(source), specs)
    except ValueError as error:
        raise InputError(str(error), where="plan") from error
    fits = any(part.strategy.fits for part in assignments)
    fitted = _fit(source, assignments, calibration, ctx) if fits else {}
    files = sorted(p for p in source.iterdir() if p.is_file() and p.name not in WRITTEN_HERE)
    with progress() as bar:
        job = bar.add_task("convert", total=len(files))
        for file in files:
            if file.suffix != ".safetensors":
                shutil.copyfile(file, target / file.name)
            bar.advance(job)
        write_weights(source, target, tensor_names(config), fitted)
    plan_sha256 = identity(plan)
    (target / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n")
    lineage = {
        "base": {"source": _public(model.source), "sha256": model.sha256, **_license(source)},
        "plan_sha256": plan_sha256,
    }
    if regularized:
        told = json.loads((source / LINEAGE).read_text())["regularize"]
        lineage["regularized"] = {"sha256": regularized.sha256, **told}
    if fits:
        lineage["fitted_on"] = {
            "text_sha256": calibration.text.sha256,
            "rows": calibration.rows,
            "row_tokens": calibration.row_tokens,
        }
    (target / LINEAGE).write_text(json.dumps(lineage, indent=1) + "\n")
    tree = ctx.store.put_tree(target)
    return CheckpointRef(**tree.model_dump(), base_sha256=model.sha256, plan_sha256=plan_sha256)


def _fit(
    source: Path, assignments: list[Assignment], calibration: Calibration, ctx: Context
) -> dict[str, Tensor]:
    """The tensors that the plan's strategies fit, by full name."""
    base = load_streamed(source, ctx.device, resident_bytes=ctx.memory_bytes)
    with base, progress() as bar:
        job = bar.add_task("fit", total=len(base.model.model.layers))
        return convert_in_place(
            base.model,
            assignments,
            lambda: calibration_rows(calibration, ctx.store, source),
            after=lambda layers: bar.advance(job, layers),
            keep=base.keep_states(ctx.workdir / "states"),
        )


def _check_fits(model: ModelRef, plan: ConversionPlan) -> None:
    if plan.model_sha256 != model.sha256:
        raise InputError(
            f"the plan is for the model {plan.model_sha256[:12]}, not {model.sha256[:12]}",
            where="plan model_sha256",
            expected=model.sha256,
            remedy="choose a plan for this model, or set model_sha256 if the layers are the same",
        )
    if plan.layers != model.layers:
        raise InputError(
            f"the plan covers {plan.layers} layers",
            where="plan layers",
            expected=f"{model.layers}, as the model has",
        )


def _license(source: Path) -> dict[str, str]:
    """The base's license, where fetching found it in the base's own files."""
    told = json.loads((source / SOURCE).read_text()) if (source / SOURCE).is_file() else {}
    return {"license": told["license"]} if "license" in told else {}


def _public(source: str) -> str:
    """The source without the folders of this machine: a checkpoint travels."""
    scheme, colon, rest = source.partition(":")
    if colon and scheme != "local":
        return source
    return f"local:{PurePath(rest or scheme).name}"
