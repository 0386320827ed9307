"""Passkey prompts: exact length, key and needle where they should be, honest scores."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LAYER_SPECS, tiny_hybrid
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.errors import InputError
from layerwright.tasks.probes.recall import key_scores, last_logits, recall_prompts, score_keys
from layerwright.tasks.probes.recall_cases import CASES

TOKENIZER = byte_tokenizer()


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 6),
    prompt_tokens=st.integers(420, 700),
    keep_out=st.integers(0, 150),
    seed=st.integers(0, 2**31),
)
def test_needle_and_key_stand_where_they_should(count, prompt_tokens, keep_out, seed) -> None:
    prompts = recall_prompts(
        "passkey", TOKENIZER, count, prompt_tokens, seed, keep_out_tokens=keep_out
    )
    assert len(prompts) == count
    for prompt in prompts:
        assert len(prompt.ids) == prompt_tokens
        assert TOKENIZER.decode(prompt.ids[prompt.key_start :]) == prompt.key
        text = TOKENIZER.decode(prompt.ids)  # one token per byte, so places in the text are tokens
        needle = f" The pass key is {prompt.key}. Remember it."
        start = text.index(needle)
        # the first key token is predicted at key_start - 1; its window ends at its own position
        assert start + len(needle) <= prompt.key_start - keep_out
        assert start >= 100, "behind the introduction, so outside the sinks"
        assert text.count(prompt.key) == 2
        assert text.endswith(f"What is the pass key? The pass key is {prompt.key}")


def test_depths_spread_over_what_is_allowed() -> None:
    prompts = recall_prompts("passkey", TOKENIZER, 8, 1000, 0, keep_out_tokens=300)
    depths = [TOKENIZER.decode(prompt.ids).index(" The pass key is") / 1000 for prompt in prompts]
    assert depths == sorted(depths)
    assert depths[0] < 0.2
    assert depths[-1] > 0.58
    assert max(b - a for a, b in itertools.pairwise(depths)) < 0.08


def test_seed_decides_and_prompts_differ() -> None:
    def ids(seed: int) -> list[list[int]]:
        return [
            p.ids.tolist()
            for p in recall_prompts("passkey", TOKENIZER, 3, 500, seed, keep_out_tokens=9)
        ]

    assert ids(1) == ids(1)
    assert len({tuple(one) for one in ids(1) + ids(2)}) == 6


def test_filler_does_not_repeat_itself() -> None:
    (prompt,) = recall_prompts("passkey", TOKENIZER, 1, 4000, 0, keep_out_tokens=0)
    sentences = [s.strip() for s in TOKENIZER.decode(prompt.ids).split(".") if s.strip()]
    assert len(set(sentences)) >= 0.95 * len(sentences)


def test_too_short_a_prompt_says_what_would_do() -> None:
    with pytest.raises(InputError) as caught:
        recall_prompts("passkey", TOKENIZER, 1, 400, 0, keep_out_tokens=300)
    enough = int(str(caught.value).split("at least ")[1].split()[0])
    recall_prompts("passkey", TOKENIZER, 1, enough, 0, keep_out_tokens=300)
    with pytest.raises(InputError):
        recall_prompts("passkey", TOKENIZER, 1, enough - 1, 0, keep_out_tokens=300)


def test_scores_are_the_full_logits_at_the_keys() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"], max_position_embeddings=2048)
    prompts = recall_prompts("passkey", TOKENIZER, 3, 420, 0, keep_out_tokens=0)
    ids = torch.stack([prompt.ids for prompt in prompts])
    with torch.inference_mode():
        probabilities = model(ids).logits.double().log_softmax(-1)
    for one, score in enumerate(key_scores(model, prompts, batch=2)):
        expected = [probabilities[one, t - 1, ids[one, t]].item() for t in range(415, 420)]
        assert score.log_prob == pytest.approx(sum(expected) / 5, rel=1e-4)
        assert not score.exact


def test_exact_needs_every_token_of_the_key() -> None:
    prompts = recall_prompts("passkey", TOKENIZER, 2, 420, 0, keep_out_tokens=0)
    kept = last_logits(prompts)
    logits = torch.zeros(2, kept, len(TOKENIZER))
    for row, prompt in zip(logits, prompts, strict=True):
        row[:-1].scatter_(1, prompt.ids[-kept + 1 :, None], 9.0)
    logits[1, -2] = 0.0  # the last digit of the second key is anyone's guess
    first, second = score_keys(logits, prompts)
    assert (first.exact, second.exact) == (True, False)
    assert first.log_prob > second.log_prob


@pytest.mark.parametrize("probe", CASES)
def test_every_probe_states_its_facts_outside_the_window_and_ends_with_the_answer(probe) -> None:
    keep_out = 120
    prompts = recall_prompts(probe, TOKENIZER, 5, 900, 7, keep_out_tokens=keep_out)
    assert len({prompt.key for prompt in prompts}) == 5
    for index, prompt in enumerate(prompts):
        assert len(prompt.ids) == 900
        case = CASES[probe](random.Random(f"7/{index}"))
        text = TOKENIZER.decode(prompt.ids)
        assert text.startswith(case.introduction)
        assert text.endswith(case.question + case.answer)
        assert prompt.key == case.answer.strip()
        assert prompt.key.split()[0].rstrip(",") in case.needles[case.asked]
        places = [text.index(needle) for needle in case.needles]
        assert places == sorted(places) or not case.ordered
        for needle in case.needles:  # one token per byte, so places in the text are tokens
            assert text.count(needle) == 1
            place = text.index(needle)
            assert len(case.introduction) <= place
            assert place + len(needle) <= prompt.key_start - keep_out
