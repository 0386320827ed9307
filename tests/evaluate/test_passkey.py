"""The recall metric: where its keys stand, what it reports, and what it remembers."""

import re

import pytest
import torch

from tasks.errors import InputError
from tasks.evaluate.arms import kept_tokens
from tasks.evaluate.passkey import Passkey
from tasks.measure.recall import key_scores, recall_prompts

PASSKEY = Passkey(prompts=5, prompt_tokens=500)


def read_prompts(model) -> list[torch.Tensor]:
    """The prompts that a model is given from now on, each with the key tokens that follow it."""
    seen: list[torch.Tensor] = []

    def see(module, inputs, output):
        ids = inputs[0][0]
        if len(ids) > 1:
            seen.append(ids)
        else:
            seen[-1] = torch.cat([seen[-1], ids])

    model.model.embed_tokens.register_forward_hook(see)
    return seen


def test_keys_stand_outside_sinks_and_window_and_are_not_the_profiles(make_arms, values, hybrid):
    candidate = hybrid()
    candidate.set_layer_spec(1, {"mixer": {"kind": "streaming", "sinks": 2, "window": 90}})
    candidate.set_layer_spec(3, {"mixer": {"kind": "streaming", "sinks": 4, "window": 60}})
    arms = make_arms([PASSKEY], candidate=candidate)
    assert arms.keep_out_tokens == 92
    seen = read_prompts(candidate)
    values(PASSKEY, arms)
    texts = [arms.texts.tokenizer.decode(ids) for ids in seen]  # one token is one byte
    assert len(texts) == 5
    keys = set()
    for text in texts:
        assert len(text) == 500
        key = text[-5:]
        *stated, answer = re.finditer(key, text)
        assert answer.end() == 500
        assert stated  # and not among the sinks, nor within the window of the answer
        assert all(place.start() > 4 and place.end() <= 495 - 92 for place in stated)
        keys.add(key)
    profiled = recall_prompts(
        "passkey", arms.texts.tokenizer, 5, 500, arms.seed, keep_out_tokens=92
    )
    assert len(keys) == 5
    assert not keys & {prompt.key for prompt in profiled}


def test_values_are_those_of_the_prompts(make_arms, values, hybrid):
    arms = make_arms([PASSKEY], candidate=hybrid(streaming=(0, 1)))
    found = values(PASSKEY, arms)
    prompts = recall_prompts(
        "passkey",
        arms.texts.tokenizer,
        5,
        500,
        arms.seed_of("passkey"),
        keep_out_tokens=arms.keep_out_tokens,
    )
    for arm in ("base", "candidate"):
        scores = key_scores(arms.model(arm), prompts)
        log_prob, recall = found["key_log_prob.passkey", arm], found["recall.passkey", arm]
        assert log_prob.value == pytest.approx(sum(s.log_prob for s in scores) / 5)
        assert log_prob.low < log_prob.value < log_prob.high
        assert recall.value == sum(s.exact for s in scores) / 5
        assert recall.low <= recall.value < recall.high  # five prompts say little
        assert recall.higher_is_better
        assert recall.count == 5
    assert {name for name, _ in found} == set(PASSKEY.names())


def test_a_finished_arm_is_not_run_again(make_arms, values, hybrid):
    base, candidate = hybrid(), hybrid(streaming=(0,))
    seen = read_prompts(base)
    first = values(PASSKEY, make_arms([PASSKEY], base=base, candidate=candidate))
    again = values(PASSKEY, make_arms([PASSKEY], base=base, candidate=candidate))
    assert len(seen) == 5
    assert first == again


def test_weights_that_are_no_numbers_give_no_recall(make_arms, values, hybrid):
    broken = hybrid()
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    found = values(PASSKEY, make_arms([PASSKEY], candidate=broken))
    assert found["recall.passkey", "base"].value is not None
    for name in PASSKEY.names():
        assert found[name, "candidate"].value is None
        assert "5 of 5 prompts" in found[name, "candidate"].detail


def test_prompts_too_short_for_the_window_are_refused(make_arms, values, hybrid):
    metric = Passkey(prompts=2, prompt_tokens=500, keep_out_tokens=450)
    with pytest.raises(InputError, match="outside"):
        values(metric, make_arms([metric], candidate=hybrid()))


def test_kept_tokens_of_a_model_without_windows_is_none():
    assert kept_tokens([{"mixer": {"kind": "full"}}]) == 0
