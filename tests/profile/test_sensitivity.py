"""Damage of one layer alone: against whole forward passes, at its extremes, and after a kill."""

import json
from pathlib import Path

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens
from tiny_checkpoint import byte_tokenizer

from tasks.contracts import Spec
from tasks.errors import InputError
from tasks.measure.conversion import converted
from tasks.measure.likelihood import token_nll
from tasks.measure.passkey import key_scores, passkey_prompts
from tasks.profile.base import Subject
from tasks.profile.sensitivity import Sensitivity
from tasks.progress import progress

TOKENIZER = byte_tokenizer()
NARROW = Spec(name="streaming", sinks=2, window=6)
WIDE = Spec(name="streaming", sinks=2, window=200)
OPTIONS = {"rows": 2, "row_tokens": 48, "prompts": 2, "prompt_tokens": 440}


def subject(folder: Path, *strategies: Spec, bar=None) -> Subject:
    model = tiny_hybrid(LAYER_SPECS["full"], max_position_embeddings=2048)
    return Subject(model, TOKENIZER, tiny_tokens(3, 64), strategies, folder, 5, bar or progress())


@torch.inference_mode()
def whole_model(model, rows: torch.Tensor, prompts) -> tuple[float, float]:
    nll = token_nll(model(rows).logits, rows).double().mean().item()
    scores = key_scores(model, prompts)
    return nll, sum(score.log_prob for score in scores) / len(scores)


def test_running_only_the_layers_above_gives_what_the_whole_model_gives(tmp_path: Path) -> None:
    on = subject(tmp_path, NARROW)
    found = Sensitivity(**OPTIONS).run(on)
    prompts = passkey_prompts(TOKENIZER, 2, 440, 5, keep_out_tokens=8)
    rows = on.rows[:2, :48]
    base_nll, base_key = whole_model(on.model, rows, prompts)
    assert found.reference["nll"] == pytest.approx(base_nll, abs=1e-6)
    assert found.reference["key_log_prob"] == pytest.approx(base_key, abs=1e-5)
    for layer in range(LAYERS):
        with converted(on.model, {layer: LAYER_SPECS["streaming"]}):
            nll, key = whole_model(on.model, rows, prompts)
        (damage,) = found.damage[layer]
        assert damage.strategy == NARROW
        assert damage.language_nats == pytest.approx(nll - base_nll, abs=1e-6)
        assert damage.recall_nats == pytest.approx(base_key - key, abs=1e-5)
        assert abs(damage.language_nats) > 1e-4, "the window is narrow enough to matter"


def test_a_window_wider_than_the_text_does_no_damage_and_keep_is_not_tried(tmp_path: Path) -> None:
    # prompts of 440 tokens are longer than the window: recall may change, language may not
    found = Sensitivity(**OPTIONS).run(subject(tmp_path, Spec(name="keep"), WIDE))
    for damages in found.damage:
        assert [damage.strategy for damage in damages] == [WIDE]
        assert damages[0].language_nats == pytest.approx(0, abs=1e-6)
    assert any(abs(damages[0].recall_nats) > 1e-4 for damages in found.damage)


def test_nothing_but_keep_still_gives_the_reference(tmp_path: Path) -> None:
    found = Sensitivity(**OPTIONS).run(subject(tmp_path, Spec(name="keep")))
    assert found.damage == [()] * LAYERS
    assert set(found.reference) == {"nll", "key_log_prob", "exact_keys"}


def test_after_a_kill_the_done_layers_are_not_measured_again(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class KillingBar(type(progress())):
        def advance(self, *args, **kwargs) -> None:
            raise Killed

    whole = Sensitivity(**OPTIONS).run(subject(tmp_path / "whole", NARROW))
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        Sensitivity(**OPTIONS).run(subject(folder, NARROW, bar=KillingBar()))
    (done,) = folder.rglob("layer_*.json")
    assert done.name == "layer_000.json"
    marked = json.loads(done.read_text())
    marked[0]["recall_nats"] = 123.0  # a measurement would not give this
    done.write_text(json.dumps(marked))
    on = subject(folder, NARROW)
    resumed = Sensitivity(**OPTIONS).run(on)
    assert resumed.damage[0][0].recall_nats == 123.0
    assert resumed.damage[1:] == whole.damage[1:]
    assert resumed.reference == whole.reference
    assert {spec["mixer"]["kind"] for spec in on.model.config.layer_specs} == {"full"}


def test_other_options_do_not_find_these_results(tmp_path: Path) -> None:
    Sensitivity(**OPTIONS).run(subject(tmp_path, NARROW))
    Sensitivity(**(OPTIONS | {"rows": 1})).run(subject(tmp_path, NARROW))
    assert len(list(tmp_path.iterdir())) == 2


def test_more_text_than_the_profile_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at most the profile's 3 rows of 64"):
        Sensitivity(**(OPTIONS | {"rows": 4})).run(subject(tmp_path, NARROW))


def test_a_reach_as_long_as_the_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside sinks and window"):
        Sensitivity(**OPTIONS).run(subject(tmp_path, Spec(name="streaming", window=430)))
