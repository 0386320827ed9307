"""Damage of one layer alone: against whole forward passes, at its extremes, and after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from facts import says
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens
from tiny_checkpoint import byte_tokenizer
from torch.nn.modules.module import register_module_forward_hook

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.models.conversion import converted
from layerwright.tasks.passes.fitting import convert_in_place
from layerwright.tasks.passes.likelihood import token_nll
from layerwright.tasks.probes.recall import key_scores, recall_prompts
from layerwright.tasks.probes.recall_cases import CASES
from layerwright.tasks.probes.yardstick import KL_EVERY
from layerwright.tasks.profile.base import Subject
from layerwright.tasks.profile.profilers.sensitivity import Sensitivity
from layerwright.tasks.progress import progress
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.linear import Linear
from layerwright.tasks.strategies.local import Local
from layerwright.tasks.strategies.prefill_selection import PrefillSelection
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.strategies.specs import Assignment
from layerwright.tasks.strategies.streaming import Streaming

TOKENIZER = byte_tokenizer()
NARROW = Streaming(sinks=2, window=6)
WIDE = Streaming(sinks=2, window=200)
OPTIONS = {"rows": 2, "row_tokens": 48, "probes": ["passkey"], "prompts": 2, "prompt_tokens": 440}


def subject(folder: Path, *strategies: Strategy, bar=None) -> Subject:
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
    prompts = recall_prompts("passkey", TOKENIZER, 2, 440, 5, keep_out_tokens=8)
    rows = on.rows[:2, :48]
    base_nll, base_key = whole_model(on.model, rows, prompts)
    assert found.reference["nll"] == pytest.approx(base_nll, abs=1e-6)
    assert found.reference["key_log_prob.passkey"] == pytest.approx(base_key, abs=1e-5)
    for layer in range(LAYERS):
        with converted(on.model, {layer: LAYER_SPECS["streaming"]}):
            nll, key = whole_model(on.model, rows, prompts)
        (damage,) = found.damage[layer]
        assert damage.strategy == NARROW.spec
        assert damage.language_nats == pytest.approx(nll - base_nll, abs=1e-6)
        assert damage.recall_nats == pytest.approx(base_key - key, abs=1e-5)
        assert abs(damage.language_nats) > 1e-4, "the window is narrow enough to matter"


def test_a_window_wider_than_the_text_does_no_damage_and_keep_is_not_tried(tmp_path: Path) -> None:
    # prompts of 440 tokens are longer than the window: recall may change, language may not
    found = Sensitivity(**OPTIONS).run(subject(tmp_path, Keep(), WIDE))
    for damages in found.damage:
        assert [damage.strategy for damage in damages] == [WIDE.spec]
        assert damages[0].language_nats == pytest.approx(0, abs=1e-6)
    assert any(abs(damages[0].recall_nats) > 1e-4 for damages in found.damage)


@torch.no_grad()
def test_kl_and_every_probe_are_those_of_the_whole_model(tmp_path: Path) -> None:
    on = subject(tmp_path, NARROW)
    options = OPTIONS | {"probes": list(CASES), "prompt_tokens": 500}
    found = Sensitivity(**options).run(on)
    rows = on.rows[:2, :48]
    base = on.model(rows).logits[:, :-1:KL_EVERY].log_softmax(-1)
    prompts = {
        probe: recall_prompts(probe, TOKENIZER, 2, 500, 5, keep_out_tokens=8) for probe in CASES
    }

    def recall(probe: str) -> float:
        return sum(score.log_prob for score in key_scores(on.model, prompts[probe])) / 2

    before = {probe: recall(probe) for probe in CASES}
    for layer in range(LAYERS):
        (damage,) = found.damage[layer]
        with converted(on.model, {layer: LAYER_SPECS["streaming"]}):
            log_q = on.model(rows).logits[:, :-1:KL_EVERY].log_softmax(-1)
            after = {probe: recall(probe) for probe in CASES}
        kl = (base.exp() * (base - log_q)).sum(-1).mean().item()
        assert damage.kl_nats == pytest.approx(kl, abs=1e-5)
        assert damage.probes == pytest.approx({p: before[p] - after[p] for p in CASES}, abs=1e-4)
        assert damage.recall_nats == pytest.approx(sum(damage.probes.values()) / len(CASES))


@torch.no_grad()
def test_runs_are_fitted_and_measured_as_one(tmp_path: Path) -> None:
    linear = Linear()
    on = replace(subject(tmp_path, linear, NARROW), rows=tiny_tokens(4, 64))
    found = Sensitivity(**OPTIONS, runs=(2, 3)).run(on)
    lengths = [[d.layers for d in of if d.strategy == linear.spec] for of in found.damage]
    assert lengths == [[1, 2, 3], [1, 2, 3], [1, 2], [1]]
    assert all(len([d for d in of if d.strategy == NARROW.spec]) == 1 for of in found.damage)
    for start in range(LAYERS - 1):
        model = tiny_hybrid(LAYER_SPECS["full"], max_position_embeddings=2048)
        parts = [Assignment(i, i + 1, Keep()) for i in range(start)]
        parts += [Assignment(start, start + 2, linear)]
        parts += [Assignment(i, i + 1, Keep()) for i in range(start + 2, LAYERS)]
        convert_in_place(model, parts, lambda: on.rows[2:])
        nll, _ = whole_model(
            model,
            on.rows[:2, :48],
            recall_prompts("passkey", TOKENIZER, 1, 440, 5, keep_out_tokens=0),
        )
        damage = next(d for d in found.damage[start] if d.layers == 2)
        assert damage.language_nats == pytest.approx(nll - found.reference["nll"], abs=1e-5)


def test_nothing_but_keep_still_gives_the_reference(tmp_path: Path) -> None:
    found = Sensitivity(**OPTIONS).run(subject(tmp_path, Keep()))
    assert found.damage == [()] * LAYERS
    assert set(found.reference) == {"nll", "key_log_prob.passkey", "exact_keys.passkey"}


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
    with pytest.raises(InputError, match="3 rows of 64"):
        Sensitivity(**(OPTIONS | {"rows": 4})).run(subject(tmp_path, NARROW))


def test_rows_to_fit_on_must_be_left(tmp_path: Path) -> None:
    every_row = OPTIONS | {"rows": 3}
    Sensitivity(**every_row).run(subject(tmp_path, NARROW))
    with pytest.raises(InputError, match="3 rows"):
        Sensitivity(**every_row).run(subject(tmp_path, Linear()))


def test_a_reach_as_long_as_the_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says("sinks", "window")):
        Sensitivity(**OPTIONS).run(subject(tmp_path, Streaming(window=430)))


@torch.no_grad()
@pytest.mark.parametrize("strategy", [Linear(), Remove(patch=True)], ids=lambda s: s.name)
def test_what_must_be_fitted_is_fitted_on_the_other_rows(
    tmp_path: Path, strategy: Strategy
) -> None:
    on = replace(subject(tmp_path, strategy), rows=tiny_tokens(4, 64))
    said: list[str] = []
    found = Sensitivity(**OPTIONS).run(replace(on, log=said.append))
    prompts = recall_prompts("passkey", TOKENIZER, 2, 440, 5, keep_out_tokens=0)
    rows = on.rows[:2, :48]
    for layer in range(LAYERS):
        if strategy.name == "remove" and layer == 0:
            assert found.damage[0] == (), "no layer below could take the patch"
            assert "layer 0 cannot become remove" in said[0]
            continue
        model = tiny_hybrid(LAYER_SPECS["full"], max_position_embeddings=2048)
        parts = [Assignment(i, i + 1, strategy if i == layer else Keep()) for i in range(LAYERS)]
        convert_in_place(model, parts, lambda: on.rows[2:])
        nll, key = whole_model(model, rows, prompts)
        (damage,) = found.damage[layer]
        assert damage.language_nats == pytest.approx(nll - found.reference["nll"], abs=1e-5)
        assert damage.recall_nats == pytest.approx(
            found.reference["key_log_prob.passkey"] - key, abs=1e-4
        )


def test_spans_come_from_the_scores_of_each_layer(tmp_path: Path) -> None:
    asked = Local(spans="layer", tau=0.9, correction="none", sinks=2)
    scores = tuple(
        {"covered_mass_6": 0.95 if i == 1 else 0.5, "covered_mass_40": 0.97} for i in range(LAYERS)
    )
    on = replace(subject(tmp_path / "asked", asked), scores=scores)
    found = Sensitivity(**OPTIONS).run(on)
    narrow, wide = (Local(spans=span, correction="none", sinks=2) for span in (6, 40))
    fixed = Sensitivity(**OPTIONS).run(
        replace(subject(tmp_path / "fixed", narrow, wide), scores=scores)
    )
    for layer in range(LAYERS):
        (damage,) = found.damage[layer]
        assert damage.strategy == asked.spec
        assert damage.language_nats == fixed.damage[layer][0 if layer == 1 else 1].language_nats
    with pytest.raises(InputError, match="covered_span"):
        Sensitivity(**OPTIONS).run(subject(tmp_path / "none", asked))


def test_layers_that_decide_together_cannot_be_measured_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layers"):
        Sensitivity(**OPTIONS).run(subject(tmp_path, PrefillSelection(window=9)))


def test_a_strategy_on_each_of_30_layers_costs_at_most_18_forwards(tmp_path: Path) -> None:
    model = tiny_hybrid(LAYER_SPECS["full"], max_position_embeddings=512, num_hidden_layers=30)
    on = Subject(model, TOKENIZER, tiny_tokens(2, 48), [NARROW], tmp_path, 5, progress())
    through = 0

    def count(module, inputs, output) -> None:
        nonlocal through
        if isinstance(module, HybridLayer):  # converted ones too
            through += inputs[0].shape[0] * inputs[0].shape[1]

    hook = register_module_forward_hook(count)
    try:
        Sensitivity(rows=1, probes=["passkey"], prompts=1, prompt_tokens=440).run(on)
    finally:
        hook.remove()
    forwards = through / (30 * (48 + 440))
    assert (30 + 1) / 2 <= forwards <= 0.6 * 30  # only the layers above run again
