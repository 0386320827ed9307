"""A base larger than the memory given to it: the same profile, in parts that survive a kill."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forks import Fork
from tiny import LAYERS
from tiny_profile import PROFILERS, inputs, options

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.profile.model import profile_model
from layerwright.tasks.strategies.drop_attention import DropAttention
from layerwright.tasks.strategies.gated_recurrence import GatedRecurrence
from layerwright.tasks.strategies.linear import Linear
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.strategies.streaming import Streaming

ROWS = 5
STRATEGIES = (
    Streaming(sinks=2, window=14),
    Linear(),
    Remove(patch=True),
    GatedRecurrence(window=14, decay="statistics", learned_mix="head"),
    DropAttention(),
)
SHARED = tuple(spec for spec in PROFILERS if spec.name not in ("sensitivity", "trsp_scale"))


def bounded(ctx: Context, model: ModelRef, layers: int) -> Context:
    """With memory for so many layers."""
    with load_streamed(ctx.store.open_tree(model.sha256), resident_layers=layers) as streamed:
        return replace(ctx, memory_bytes=streamed.peak_resident_bytes)


def profile(
    model: ModelRef, text: TextRef, ctx: Context, profilers, strategies=STRATEGIES
) -> ModelProfile:
    found = profile_model(model, text, options(*profilers), strategies, ctx)
    return found.model_copy(update={"seconds": 0.0})


WITH_RUNS = tuple(
    Spec(**(spec.model_dump() | {"runs": [2]})) if spec.name == "sensitivity" else spec
    for spec in PROFILERS
)


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory) -> ModelProfile:
    """What every profiler finds with the whole model in memory."""
    return profile(*inputs(tmp_path_factory.mktemp("in-memory")), WITH_RUNS)


@pytest.fixture(scope="module")
def shared_in_memory(tmp_path_factory) -> ModelProfile:
    """What the profilers find that share a pass."""
    return profile(*inputs(tmp_path_factory.mktemp("in-memory")), SHARED)


@pytest.mark.parametrize("layers", [1, 3])
def test_every_profiler_finds_what_it_finds_in_memory(
    tmp_path: Path, layers: int, in_memory: ModelProfile
) -> None:
    model, text, ctx = inputs(tmp_path)
    profilers, expected = WITH_RUNS, in_memory
    within = replace(bounded(ctx, model, layers), workdir=tmp_path / "bounded")
    assert profile(model, text, within, profilers) == expected
    for strategy in STRATEGIES:
        assert any(one.damage_of(strategy.spec) for one in expected.layers), strategy.name
    assert any(one.damage_of(STRATEGIES[1].spec, layers=2) for one in expected.layers)
    left = {path.name.partition("-")[0] for path in within.workdir.iterdir()}
    assert left == {"blocks", "rows", "sensitivity", "states", "trsp_scale"}
    for folder in ("rows", "states"):
        assert list((within.workdir / folder).iterdir()) == [], "no hidden states are left behind"


def profile_and_die(folder: Path, after: int) -> None:
    """Killed at the layer after so many."""
    left = [after]

    def die(module: torch.nn.Module, arguments: object) -> None:
        if isinstance(module, HybridLayer):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    model, text, ctx = inputs(folder)
    torch.nn.modules.module.register_module_forward_pre_hook(die)
    profile(model, text, bounded(ctx, model, 1), SHARED)


@pytest.mark.parametrize("blocks", [0, 2, LAYERS])
def test_after_kill_9_it_goes_on_behind_the_last_finished_block(
    tmp_path: Path, blocks: int, shared_in_memory: ModelProfile
) -> None:
    expected = shared_in_memory
    folder = tmp_path / "killed"
    after = min(blocks * ROWS + 2, LAYERS * ROWS - 1)
    if blocks < LAYERS:
        assert Fork(profile_and_die, folder, after).wait() == -signal.SIGKILL
        same = inputs(folder)
    else:  # killed between the pass and the end of the step
        same = inputs(folder)
        profile(same[0], same[1], bounded(same[2], same[0], 1), SHARED)
    runs: list[HybridLayer] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: runs.append(module) if isinstance(module, HybridLayer) else None
    )
    with hook:
        found = profile(same[0], same[1], bounded(same[2], same[0], 1), SHARED)
    assert found == expected
    assert len(runs) == ROWS * (LAYERS - blocks)


def test_memory_in_which_no_layer_fits_is_refused(tmp_path: Path) -> None:
    model, text, ctx = inputs(tmp_path)
    with pytest.raises(InputError, match="too few for one layer"):
        profile(model, text, replace(ctx, memory_bytes=1000), SHARED)
