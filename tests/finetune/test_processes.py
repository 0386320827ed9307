"""Two processes over gloo come to what one process comes to; and to the same after a kill."""

import logging
import signal
import time

import psutil
import pytest
import torch
from finetune.healing_case import (
    HELD_OUT,
    LAYER_BY_LAYER,
    OPTIONS,
    STAGE,
    TWO_STAGES,
    HealingCase,
)
from finetune.test_regularization import OPTIONS as BEFORE_REMOVAL
from finetune.test_regularization import plan
from forks import Fork
from safetensors.torch import load_file
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.errors import StepError
from layerwright.tasks.finetune.objectives.hidden_state import HiddenState
from layerwright.tasks.finetune.task import finetune_model, regularize_model
from layerwright.tasks.orchestration.job import run_job
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.recipe.compute import Compute, StepPlacement
from layerwright.tasks.recipe.training import AdapterOptions

# every kind of pass, adapter and rest: five rows for two processes, two at a time
MIXED = TWO_STAGES.model_copy(
    update={
        "stages": (
            LAYER_BY_LAYER.model_copy(update={"rows_per_step": 2}),
            STAGE.model_copy(
                update={
                    "objectives": (*STAGE.objectives, HiddenState(weight=0.5)),
                    "steps": 12,
                    "rows_per_step": 6,
                    "rows_at_once": 2,
                    "learning_rate": 5e-3,
                    "adapter": AdapterOptions(rank=4, alpha=8, dora=True),
                    "gradient_checkpointing": True,
                }
            ),
        ),
        "validation": TWO_STAGES.validation.model_copy(update={"rows": 3}),
    }
)


class Told(logging.Handler):
    """What a run tells of its steps."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def emit(self, record):
        self.log(record.getMessage())


def run_shared(node, case, processes, *inputs, log=None):
    """A node's job where so many processes share it, as a run does it."""
    placement = StepPlacement(device="cpu", processes=processes)
    place = Place(
        home=str(case.root / "home"), store=case.store.uri, compute=Compute(default=placement)
    )
    logger, told = logging.getLogger("layerwright"), Told(log or case.log.append)
    logger.setLevel(logging.INFO)
    logger.addHandler(told)
    try:
        return node.returns.validate_python(run_job(node.job(place, *inputs)))
    finally:
        logger.removeHandler(told)


def heal(case, options, processes, log=None):
    held_out = case.text(HELD_OUT, "held-out") if options.validation else None
    inputs = (case.base, case.checkpoint, case.text(), held_out, options)
    return run_shared(finetune_model, case, processes, *inputs, log=log)


def weights(case, ref):
    return load_file(case.store.open_tree(ref.sha256) / "model.safetensors")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    one, two = (HealingCase(tmp_path_factory.mktemp(name)) for name in ("one", "two"))
    return (one, heal(one, MIXED, 1)), (two, heal(two, MIXED, 2))


def near(ours, theirs):
    return relative_rms(torch.tensor(ours), torch.tensor(theirs)) <= SAME_MODEL[torch.float32]


def test_the_loss_curve_is_that_of_one_process(both):
    (_, one), (_, two) = both
    assert two.processes == 2
    assert len(two.points) == 18
    assert near([p.loss for p in two.points], [p.loss for p in one.points])
    for mine, other in zip(two.points, one.points, strict=True):
        assert mine.values == pytest.approx(other.values, rel=1e-4)
    assert near([p.loss for p in two.validation], [p.loss for p in one.validation])
    assert [s.trained_parameters for s in two.stages] == [s.trained_parameters for s in one.stages]


def test_the_merged_weights_are_those_of_one_process(both):
    (case, one), (other, two) = both
    before = weights(case, case.checkpoint)
    ours, theirs = weights(other, two.checkpoint), weights(case, one.checkpoint)
    changed = [name for name in theirs if not torch.equal(theirs[name], before[name])]
    assert changed
    for name in theirs:
        assert relative_rms(ours[name], theirs[name]) <= 1e-3, name
        if name in changed:
            assert relative_rms(ours[name] - before[name], theirs[name] - before[name]) <= 2e-2


def test_what_the_first_process_tells_is_passed_on(both):
    _, (case, _) = both
    assert any("finetune stage 2, step 12 of 12: loss" in line for line in case.log)


def test_regularisation_is_shared_as_well(tmp_path):
    options = BEFORE_REMOVAL.model_copy(
        update={"steps": 4, "weights": (0.1, 0.5), "sweep_steps": 2}
    )
    reports, trained = [], []
    for processes in (1, 2):
        case = HealingCase(tmp_path / str(processes))
        texts = (case.text(), case.text(HELD_OUT, "held-out"))
        inputs = (case.base, plan(case), *texts, options)
        reports.append(run_shared(regularize_model, case, processes, *inputs))
        trained.append(weights(case, reports[-1].model))
        before = weights(case, case.base)
    one, two = reports
    for name in ("model.norm.weight", "model.layers.3.mlp.up_proj.weight"):
        ours, theirs = (tensors[name] - before[name] for tensors in trained)
        assert relative_rms(ours, theirs) <= 1e-2, name
    assert near([p.loss for p in two.points], [p.loss for p in one.points])
    assert two.nll_after == pytest.approx(one.nll_after, rel=1e-4)


def heal_and_tell(root, told):
    with told.open("w", buffering=1) as lines:
        heal(HealingCase(root), MIXED, 2, log=lambda line: print(line, file=lines))


def test_killed_it_goes_on_and_leaves_no_process_behind(both, tmp_path):
    _, (_, expected) = both
    told = tmp_path / "told"
    told.touch()
    parent = Fork(heal_and_tell, tmp_path, told)
    while "stage 2, step 10 of 12" not in told.read_text():
        assert parent.poll() is None, told.read_text()
        time.sleep(0.05)
    others = psutil.Process(parent.pid).children(recursive=True)
    assert len(others) >= 3, "the agent and two processes"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in others):
        assert time.monotonic() < deadline, "processes outlived the one that asked for them"
        time.sleep(0.2)
    case = HealingCase(tmp_path)
    report = heal(case, MIXED, 2)
    assert any("finetune resumes from stage 2, step 8" in line for line in case.log)
    assert report.points == expected.points
    assert report.checkpoint.sha256 == expected.checkpoint.sha256


def test_what_goes_wrong_in_the_processes_is_told_here(tmp_path):
    wild = STAGE.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 1e30})
    options = OPTIONS.model_copy(update={"stages": (wild,)})
    with pytest.raises(StepError, match="not finite"):
        heal(HealingCase(tmp_path), options, 2)
