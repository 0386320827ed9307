"""Answers' likelihoods: lm-eval's for any pair, and the same however many are run at once."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny import LAYER_SPECS, tiny_hybrid, tiny_llama
from tiny_checkpoint import byte_tokenizer
from tiny_questions import rows
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.evaluate import answers
from layerwright.tasks.evaluate.answers import Answer, answer_scores, encoded
from layerwright.tasks.evaluate.metrics.hellaswag import HellaSwagRow
from layerwright.tasks.evaluate.questions import Question

PAIRS = (
    ("Is it wool?", " yes"),
    ("Is it wool?", " no, copper"),
    ("a context that ends with spaces  ", " and goes on"),
    ("", " nothing before it"),
    ("one token", "s"),
    ("one token", "!"),
    ("far too long for the model " * 30, " but its end is read"),
)


def log_probs(model, questions) -> torch.Tensor:
    return torch.tensor([s.log_prob for found in answer_scores(model, questions) for s in found])


@pytest.fixture(scope="module")
def questions() -> list[tuple[Answer, ...]]:
    found = [HellaSwagRow.model_validate(r).question() for r in rows("hellaswag", 8)]
    return sorted(
        (encoded(question, byte_tokenizer()) for question in found),
        key=lambda each: -max(len(answer.ids) for answer in each),
    )


def test_log_likelihoods_are_lm_evals(hybrid):
    theirs = HFLM(pretrained=tiny_llama(), tokenizer=byte_tokenizer()).loglikelihood(
        [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(PAIRS)]
    )
    question = encoded(Question(PAIRS, 0, (1,) * len(PAIRS)), byte_tokenizer())
    [ours] = answer_scores(hybrid(), [question])
    expected = torch.tensor([log_prob for log_prob, _ in theirs])
    actual = torch.tensor([score.log_prob for score in ours])
    assert relative_rms(actual, expected) < SAME_MODEL[torch.float32]
    assert [score.greedy for score in ours] == [greedy for _, greedy in theirs]


def test_greedy_is_what_the_model_says_next(hybrid):
    model, tokenizer = hybrid(), byte_tokenizer()
    ids = torch.tensor([tokenizer("The fog").input_ids])
    said = model.generate(ids, max_new_tokens=3, do_sample=False)[0].tolist()
    [[right, wrong]] = answer_scores(
        model, [[Answer(tuple(said), 3), Answer((*said[:-1], (said[-1] + 1) % 256), 3)]]
    )
    assert (right.greedy, wrong.greedy) == (True, False)
    assert right.log_prob > wrong.log_prob


@pytest.mark.parametrize("spec", LAYER_SPECS.values(), ids=LAYER_SPECS)
def test_padded_is_the_same_as_one_by_one(spec, questions, monkeypatch):
    model = tiny_hybrid(spec)
    together = log_probs(model, questions)
    monkeypatch.setattr(answers, "MOST_TOKENS", {"cpu": 1})
    single = log_probs(model, questions)
    assert relative_rms(together, single) < SAME_MODEL[torch.float32]


def test_less_is_run_at_once_where_memory_ends(questions, hybrid, monkeypatch):
    model, sizes = hybrid(), []

    def small(module, inputs):
        sizes.append(inputs[0].numel())
        if sizes[-1] > 600:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    expected = log_probs(model, questions)
    model.model.embed_tokens.register_forward_pre_hook(small)
    assert relative_rms(log_probs(model, questions), expected) < SAME_MODEL[torch.float32]
    refused = [size for size in sizes if size > 600]
    assert 1 <= len(refused) < 5
    assert sizes[: len(refused)] == refused  # what was found is kept


def test_answers_that_differ_in_their_last_token_share_a_row(hybrid):
    model, seen = hybrid(), []
    model.model.embed_tokens.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    list(answer_scores(model, [[Answer((1, 2, 3, 4), 1), Answer((1, 2, 3, 5), 1)]]))
    assert [batch.shape for batch in seen] == [(1, 3)]
