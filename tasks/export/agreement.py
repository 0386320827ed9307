"""Check that an exported model computes the same logits as its checkpoint.

Shapes: B batch, T tokens, V vocabulary.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.models.loading import load_checkpoint

LIMIT = 1e-5  # relative RMS in fp32
ROWS, BEYOND, MIN_LENGTH = 2, 64, 128  # BEYOND: tokens after the widest window
PROCESS = Path(__file__).with_name("served_process.py")


def assert_agreement(
    checkpoint: Path, config: HybridConfig, exported: Path, **options: Any
) -> float:
    """The relative RMS difference between the logits of the checkpoint and of the export, in fp32.

    The export is loaded in a separate process that cannot see this project's code or the network
    and has an empty module cache. The checkpoint is no longer in memory by then.

    ``options`` are for `from_pretrained`, such as trust_remote_code.

    Raises:
        IntegrityError: the export does not load, or the difference is above LIMIT.
    """
    ids = probe(config)
    expected = _expected(checkpoint, ids)
    with tempfile.TemporaryDirectory() as scratch:
        actual = _exported_logits(exported, ids, Path(scratch), options)
    difference = relative_rms(actual, expected)
    if not difference <= LIMIT:  # true for NaN too
        raise IntegrityError(
            f"the exported model's logits differ from the checkpoint's by a relative RMS of "
            f"{difference:.1e}, the maximum is {LIMIT:.0e}; nothing was written"
        )
    return difference


def probe(config: HybridConfig) -> Tensor:
    """Fixed random tokens (B, T), more than any layer's window."""
    specs = config.layer_specs or []
    reaches = (MIXERS[s["mixer"]["kind"]].reach_tokens(s["mixer"]) for s in specs)
    length = max(MIN_LENGTH, BEYOND + max(reach or 0 for reach in reaches))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, config.vocab_size, (ROWS, length), generator=generator)


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """sqrt(mean((actual - expected)²) / mean(expected²)), in fp64."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).square().mean() / expected.square().mean()).sqrt().item()


@torch.inference_mode()
def _expected(checkpoint: Path, ids: Tensor) -> Tensor:
    model = load_checkpoint(checkpoint, dtype=torch.float32)
    return model(ids, logits_to_keep=BEYOND).logits


def _exported_logits(exported: Path, ids: Tensor, scratch: Path, options: dict[str, Any]) -> Tensor:
    inputs, outputs = scratch / "ids.safetensors", scratch / "logits.safetensors"
    save_file({"ids": ids}, inputs)
    arguments = json.dumps(options | {"logits_to_keep": BEYOND})
    command = [sys.executable, "-I", PROCESS, exported.resolve(), inputs, outputs, arguments]
    home = {"HF_HOME": str(scratch / "home"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        list(map(str, command)), cwd=scratch, env=os.environ | home, capture_output=True, text=True
    )
    if process.returncode:
        reason = (process.stderr.strip() or f"exit status {process.returncode}").splitlines()[-1]
        raise IntegrityError(f"the exported model does not load, nothing was written: {reason}")
    return load_file(outputs)["logits"]
