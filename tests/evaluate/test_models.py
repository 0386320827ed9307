"""The step on stored checkpoints: its report, its resume after kill -9, its control arm."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from forks import Fork
from tiny_questions import rows
from tiny_text import write_items

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.references import TextRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate import harness_runs
from layerwright.tasks.evaluate.models import evaluate_models
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.recipe.evaluate import EvaluateOptions
from layerwright.tasks.store.local import LocalStore

OPTIONS = EvaluateOptions(
    metrics=(
        Spec(name="perplexity", texts=["english"], rows=2, row_tokens=200),
        Spec(name="divergence", texts=["english"], rows=2, row_tokens=200),
        Spec(name="recall", prompts=3, prompt_tokens=[400]),
        Spec(name="kv_cache", tokens=[64], prefill_tokens=64),
        Spec(name="overlap", texts=["english"], against="other"),
    )
)
PROMPT = 1 + 5  # the prompt, and the five tokens of its key
FORWARDS = 2 * (2 + 3 * PROMPT + 1)  # rows, prompts and one prefill, two arms


def evaluate(stored, context, control=None, champion=None):
    return evaluate_models(
        stored.base, stored.candidate, control, champion, stored.texts, OPTIONS, context
    )


def test_the_report_has_both_arms(stored, context, forwards):
    report = evaluate_models(
        stored.base, stored.candidate, None, None, stored.texts, OPTIONS, context
    )
    assert len(forwards) == FORWARDS
    assert report.base_sha256 == stored.base.sha256
    assert report.candidate_sha256 == stored.candidate.sha256
    assert report.control_sha256 is None
    assert report.value("kv_bytes.64", "candidate") < report.value("kv_bytes.64", "base")
    assert report.value("kl_mean.english", "candidate") > 0
    assert report.value("overlap.english", "candidate") == 0
    assert report.kernels == {"streaming_attention": ("blockwise",)}
    assert set(report.by_arm("base")) == {
        "perplexity.english", "recall.passkey.400", "key_log_prob.passkey.400", "kv_bytes.64",
    }  # fmt: skip
    assert type(report).model_validate_json(report.model_dump_json()) == report


def test_the_arms_hold_equal_embeddings_once(stored, context):
    held = set()

    def note(module, arguments):
        if isinstance(module, torch.nn.Embedding):
            held.add(module.weight.data_ptr())

    with torch.nn.modules.module.register_module_forward_pre_hook(note):
        evaluate(stored, context)
    assert len(held) == 1


def test_a_control_is_measured_like_the_candidate(stored, context):
    report = evaluate(stored, context, control=stored.candidate)
    assert report.control_sha256 == stored.candidate.sha256
    control, candidate = report.by_arm("control"), report.by_arm("candidate")
    candidate.pop("overlap.english")
    assert control == candidate


@pytest.mark.parametrize("layers", [1, 3])
def test_models_larger_than_memory_give_the_same_figures(stored, context, tmp_path, layers):
    texts = stored.texts | {"piqa": questions(context, tmp_path)}
    options = EvaluateOptions(metrics=(*OPTIONS.metrics, Spec(name="piqa", texts=["piqa"])))
    inputs = (stored.base, stored.candidate, None, None, texts, options)
    report = evaluate_models(*inputs, context)
    assert report.value("task.piqa.acc", "candidate") is not None
    with load_streamed(
        context.store.open_tree(stored.base.sha256), resident_layers=layers
    ) as streamed:
        share = streamed.peak_resident_bytes
    bounded = replace(context, workdir=tmp_path / "bounded", memory_bytes=2 * share)
    assert evaluate_models(*inputs, bounded).measurements == report.measurements
    with pytest.raises(InputError, match="too few for one layer"):
        evaluate_models(*inputs, replace(context_in(context, tmp_path), memory_bytes=1000))


def evaluate_and_die(passes: int, *rest) -> None:
    """Killed at the beginning of that pass."""
    *inputs, store, workdir = rest
    left = [passes]

    def die(module, arguments):
        if isinstance(module, torch.nn.Embedding):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.nn.modules.module.register_module_forward_pre_hook(die)
    harness_runs.MOST_ROWS = 1
    evaluate_models(*inputs, Context(store=LocalStore(store), workdir=workdir))


@pytest.mark.parametrize(
    ("metrics", "before", "finished"),
    [
        # in the last prompt of the candidate, after 4 rows, the base's 3 prompts and 2 of its own
        (OPTIONS.metrics, 4 + 5 * PROMPT, ["0-perplexity.json", "1-divergence.json"]),
        # in the candidate's third question, after the base's five; each answer is run alone
        ((Spec(name="piqa", texts=["piqa"]),), 2 * (5 + 2), []),
    ],
    ids=["prompts", "questions"],
)
def test_it_goes_on_after_kill_9(
    metrics, before, finished, stored, context, forwards, tmp_path, monkeypatch
):
    texts = stored.texts | {"piqa": questions(context, tmp_path)}
    options = EvaluateOptions(metrics=metrics)
    both = (stored.base, stored.candidate, None, None, texts, options)
    died = Fork(evaluate_and_die, before + 1, *both, context.store.root, context.workdir)
    assert died.wait() == -signal.SIGKILL
    kept = [path.name for path in context.workdir.glob("metrics/*")]
    assert sorted(kept) == finished
    monkeypatch.setattr(harness_runs, "MOST_ROWS", 1)
    report = evaluate_models(*both, context)
    went_on = len(forwards)
    fresh = evaluate_models(*both, context_in(context, tmp_path))
    assert report.measurements == fresh.measurements
    assert went_on == len(forwards) - went_on - before


def questions(context, tmp_path) -> TextRef:
    tree = context.store.put_tree(write_items(tmp_path / "piqa", rows("piqa", 5)))
    return TextRef(**tree.model_dump(), source="test", documents=5, characters=1)


def context_in(context, tmp_path):
    return type(context)(store=context.store, workdir=tmp_path / "fresh")


def test_a_text_that_the_recipe_lacks_is_refused_before_anything_runs(stored, context, forwards):
    options = EvaluateOptions(metrics=(Spec(name="perplexity", texts=["french"]),))
    with pytest.raises(InputError, match="french"):
        evaluate_models(stored.base, stored.candidate, None, None, stored.texts, options, context)
    assert not forwards
