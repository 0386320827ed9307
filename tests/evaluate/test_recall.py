"""The recall metric: where its keys stand, what it reports, and what it remembers."""

import re

import pytest
import torch

from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.arms import kept_tokens
from layerwright.tasks.evaluate.metrics.recall import Recall
from layerwright.tasks.probes.recall import key_scores, recall_prompts

PASSKEY = Recall(prompts=5, prompt_tokens=[500], depths=2)


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
        log_prob, recall = found["key_log_prob.passkey.500", arm], found["recall.passkey.500", arm]
        assert log_prob.value == pytest.approx(sum(s.log_prob for s in scores) / 5)
        assert log_prob.low < log_prob.value < log_prob.high
        assert recall.value == sum(s.exact for s in scores) / 5
        assert recall.low <= recall.value < recall.high  # five prompts say little
        assert recall.higher_is_better
        assert recall.count == 5
    assert {name for name, _ in found} == set(PASSKEY.names())


def test_the_grid_has_a_figure_for_each_probe_and_length_and_slices_by_depth(
    make_arms, values, hybrid
):
    grid = Recall(
        probes=["passkey", "variable_tracking"], prompts=6, prompt_tokens=[500, 620], depths=3
    )
    arms = make_arms([grid], candidate=hybrid(streaming=(0, 1)))
    figures = list(grid.measure(arms))
    assert {f.measurement.metric for f in figures} == set(grid.names())
    assert len(grid.names()) == 2 * 2 * 2
    for figure in figures:
        slices = [item.slice for item in figure.items]
        assert sorted(set(slices)) == ["depth 0-0.333", "depth 0.333-0.667", "depth 0.667-1"]
        assert all(slices.count(one) == 2 for one in set(slices))
    assert grid.estimate_tokens() == 2 * 6 * (500 + 620)


def test_items_keep_question_answer_and_what_was_said(make_arms, hybrid):
    arms = make_arms([PASSKEY], candidate=hybrid(streaming=(0, 1)))
    prompts = recall_prompts(
        "passkey",
        arms.texts.tokenizer,
        5,
        500,
        arms.seed_of("passkey"),
        keep_out_tokens=arms.keep_out_tokens,
    )
    for figure in PASSKEY.measure(arms):
        if figure.measurement.metric != "recall.passkey.500":
            assert all(item.words is None for item in figure.items)
            continue
        for item, prompt in zip(figure.items, prompts, strict=True):
            assert item.words.expected == prompt.key
            assert item.words.prompt.endswith("What is the pass key? The pass key is ")
            # greedy, with the right digits before: bytes that are no UTF-8 count one each as well
            with torch.inference_mode():
                logits = arms.model(figure.measurement.arm)(prompt.ids[None]).logits[0, -6:-1]
            assert item.words.said == arms.texts.tokenizer.decode(logits.argmax(-1))
            assert (item.words.said == prompt.key) == item.correct


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
    assert found["recall.passkey.500", "base"].value is not None
    for name in PASSKEY.names():
        assert found[name, "candidate"].value is None
        assert "5 of 5 prompts" in found[name, "candidate"].detail


def test_prompts_too_short_for_the_window_are_refused(make_arms, values, hybrid):
    metric = Recall(prompts=2, prompt_tokens=[500], keep_out_tokens=450)
    with pytest.raises(InputError, match="outside"):
        values(metric, make_arms([metric], candidate=hybrid()))


def test_kept_tokens_of_a_model_without_windows_is_none():
    assert kept_tokens([{"mixer": {"kind": "full"}}]) == 0
