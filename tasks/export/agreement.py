"""Whether an exported model computes what the checkpoint does: both answer the same tokens.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

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
ROWS, BEYOND, SHORTEST = 2, 64, 128  # tokens beyond the widest window; tokens in any case
PROCESS = Path(__file__).with_name("served_process.py")


def assert_agreement(
    checkpoint: Path, config: HybridConfig, exported: Path, **options: Any
) -> float:
    """Relative RMS between the logits of the checkpoint and of what was exported, in fp32.

    The export is loaded in a process of its own, isolated from this one's paths, with an empty
    cache of modules and no network. The checkpoint is gone from memory by then.

    Args:
        checkpoint: the converted checkpoint; this project's own classes compute what is expected.
        options: for `from_pretrained`, such as trust_remote_code.

    Raises:
        IntegrityError: the export does not load, or its logits differ by more than LIMIT.
    """
    ids = probe(config)
    expected = _expected(checkpoint, ids)
    with tempfile.TemporaryDirectory() as scratch:
        answers = _ask(exported, ids, Path(scratch), options)
    difference = relative_rms(answers, expected)
    if not difference <= LIMIT:  # also where it is not a number
        raise IntegrityError(
            f"the exported model does not compute what the checkpoint does: relative RMS of the "
            f"logits {difference:.1e}, allowed {LIMIT:.0e}; nothing was written"
        )
    return difference


def probe(config: HybridConfig) -> Tensor:
    """Tokens (B, T), the same each time, longer than any layer's window."""
    reaches = (MIXERS[s["mixer"]["kind"]].reach_tokens(s["mixer"]) for s in config.layer_specs)
    length = max(SHORTEST, BEYOND + max(reach or 0 for reach in reaches))
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


def _ask(exported: Path, ids: Tensor, scratch: Path, options: dict[str, Any]) -> Tensor:
    questions, answers = scratch / "ids.safetensors", scratch / "logits.safetensors"
    save_file({"ids": ids}, questions)
    asked = json.dumps(options | {"logits_to_keep": BEYOND})
    command = [sys.executable, "-I", PROCESS, exported.resolve(), questions, answers, asked]
    home = {"HF_HOME": str(scratch / "home"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        list(map(str, command)), cwd=scratch, env=os.environ | home, capture_output=True, text=True
    )
    if process.returncode:
        reason = (process.stderr.strip() or f"exit status {process.returncode}").splitlines()[-1]
        raise IntegrityError(f"the exported model does not load, nothing was written: {reason}")
    return load_file(answers)["logits"]
