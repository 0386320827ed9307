"""The convert step: base checkpoint and plan -> hybrid checkpoint, a tensor at a time."""

import json
import shutil
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor
from transformers import AutoConfig

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import LINEAGE, Calibration, CheckpointRef, ModelRef
from layerwright.tasks.convert.weights import tensor_names, write_weights
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.export import write_hybrid
from layerwright.tasks.models.loading import base_config
from layerwright.tasks.models.weight_files import INDEX
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.batches import calibration_rows
from layerwright.tasks.passes.fitting import convert_in_place
from layerwright.tasks.progress import progress
from layerwright.tasks.store.manifest import MANIFEST
from layerwright.tasks.strategies.specs import Assignment, assignments_of, specs_of

SOURCE = "source.json"  # the fetch step's record of the base's files
NOT_COPIED = {"config.json", MANIFEST, SOURCE, INDEX, LINEAGE}  # of the base; rewritten or dropped


def convert_model(
    model: ModelRef,
    plan: ConversionPlan,
    calibration: Calibration,
    ctx: Context,
    regularized: ModelRef | None = None,
) -> CheckpointRef:
    """Write the hybrid checkpoint that a plan describes.

    A weights file without changes is copied byte by byte. A file with changes is rewritten with its
    tensors mapped from disk, so it is never in memory as a whole. If a strategy fits tensors, the
    base is first loaded and converted within the step's memory limit. The same inputs give the same
    digest, also after an interruption.

    Args:
        regularized: the base after regularization for this plan. If given, its weights are
            converted and its hidden states are fitted to; the lineage still names ``model``.

    Raises:
        InputError: the plan is for another model, the model family is not supported, or a strategy
            cannot be fitted on the layers that the plan assigns to it.
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
    files = sorted(p for p in source.iterdir() if p.is_file() and p.name not in NOT_COPIED)
    with progress() as bar:
        job = bar.add_task("convert", total=len(files))
        for file in files:
            if file.suffix != ".safetensors":
                shutil.copyfile(file, target / file.name)
            bar.advance(job)
        write_weights(source, target, tensor_names(config), fitted)
    plan_sha256 = identity(plan)
    (target / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n")
    lineage: dict[str, Any] = {
        "base": {"source": _public(model.source), "sha256": model.sha256, **_license(source)},
        "plan_sha256": plan_sha256,
    }
    if regularized:
        recorded = json.loads((source / LINEAGE).read_text())["regularize"]
        lineage["regularized"] = {"sha256": regularized.sha256, **recorded}
    if fits:
        shape = {"rows": calibration.rows, "row_tokens": calibration.row_tokens}
        lineage["fitted_on"] = {"text_sha256": calibration.text.sha256, **shape}
    (target / LINEAGE).write_text(json.dumps(lineage, indent=1) + "\n")
    tree = ctx.store.put_tree(target)
    return CheckpointRef(**tree.model_dump(), base_sha256=model.sha256, plan_sha256=plan_sha256)


def _fit(
    source: Path, assignments: list[Assignment], calibration: Calibration, ctx: Context
) -> dict[str, Tensor]:
    """Fit the tensors of the plan's strategies; return them by full name."""
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
            remedy="use a plan for this model; if the layers are the same, edit model_sha256",
        )
    if plan.layers != model.layers:
        raise InputError(
            f"the plan covers {plan.layers} layers",
            where="plan layers",
            expected=f"the model's {model.layers} layers",
        )


def _license(source: Path) -> dict[str, str]:
    """The base's license, if the fetch step found it in the base's files."""
    record = json.loads((source / SOURCE).read_text()) if (source / SOURCE).is_file() else {}
    return {"license": record["license"]} if "license" in record else {}


def _public(source: str) -> str:
    """The source without local folders, because the checkpoint leaves this machine."""
    scheme, colon, rest = source.partition(":")
    if colon and scheme != "local":
        return source
    return f"local:{PurePath(rest or scheme).name}"
