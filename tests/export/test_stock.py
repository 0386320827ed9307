"""The stock form computes the same with Transformers' own classes, or is refused by layer."""

import json
import shutil

import pytest
import torch
from export.checkpoints import (
    FULL,
    LINEAR,
    LOGITS,
    NO_ATTENTION,
    REMOVED,
    SINKS,
    WINDOW,
    write_hybrid_checkpoint,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_tokens
from tolerance import SAME_MODEL, relative_rms
from transformers import AutoModelForCausalLM

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.export.agreement import assert_agreement, probe
from layerwright.tasks.export.checkpoint import Checkpoint
from layerwright.tasks.export.stock import export_stock, write_stock
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.stock import stock_form
from layerwright.tasks.models.loading import load_checkpoint

LIMIT = SAME_MODEL[torch.float32]
WIDER = {**WINDOW, "mixer": {**WINDOW["mixer"], "window": 9}}
ALLOWED = {
    # name: (specs, {family: class})
    "full": ([FULL] * 4, {f: f for f in ("llama", "mistral", "qwen2", "qwen3")}),
    "removed": (
        [REMOVED, FULL, REMOVED, FULL],
        {f: f for f in ("llama", "mistral", "qwen2", "qwen3")},
    ),
    "windows": (
        [WINDOW, FULL, FULL, WINDOW],
        {"llama": "ministral", "mistral": "ministral", "qwen2": "qwen2", "qwen3": "qwen3"},
    ),
    "windows_everywhere": (
        [WINDOW] * 4,
        {"llama": "ministral", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3"},
    ),
    "windows_and_removed": (
        [WINDOW, REMOVED, FULL, WINDOW],
        {"llama": "ministral", "mistral": "ministral", "qwen2": "qwen2", "qwen3": "qwen3"},
    ),
    "sink_logits": (
        [LOGITS, REMOVED, FULL, LOGITS],
        {"llama": "granite_swa", "mistral": "granite_swa", "qwen2": "granite_swa"},
    ),
    "sink_logits_beside_a_plain_window": ([LOGITS, WINDOW, FULL, FULL], {"qwen2": "granite_swa"}),
    "all_that_is_left_has_windows": ([WINDOW, REMOVED, REMOVED, WINDOW], {"mistral": "mistral"}),
}
ROWS = [(name, family) for name, (_, families) in ALLOWED.items() for family in families]


def stock_of(folder, target):
    target.mkdir()
    write_stock(Checkpoint.open(folder), target)
    model, found = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
    assert not any(found.values()), found
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize(("name", "family"), ROWS)
def test_same_logits_and_tokens(tmp_path, name, family):
    """One shot, and token by token through the stock class's own cache."""
    specs, classes = ALLOWED[name]
    hybrid = write_hybrid_checkpoint(tmp_path / "hybrid", specs, family)
    stock = stock_of(tmp_path / "hybrid", tmp_path / "stock")
    assert stock.config.model_type == classes[family]
    assert not hasattr(stock.config, "auto_map")
    ids = tiny_tokens(2, 60)
    assert relative_rms(stock(ids).logits, hybrid(ids).logits) <= LIMIT
    cache, steps = stock(ids[:, :20], use_cache=True).past_key_values, []
    for token in range(20, 60):
        output = stock(ids[:, token : token + 1], past_key_values=cache, use_cache=True)
        cache, _ = output.past_key_values, steps.append(output.logits)
    assert relative_rms(torch.cat(steps, 1), hybrid(ids).logits[:, 20:]) <= LIMIT


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 16}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}),
        ("qwen2", {"head_dim": 16}),
        ("qwen3", {"attention_bias": True, "rms_norm_eps": 1e-4}),
    ],
)
@pytest.mark.parametrize("kind", ["full", "sink logits"])
def test_traits_of_the_base_are_kept(tmp_path, family, overrides, kind):
    specs = [FULL, REMOVED, FULL, FULL if kind == "full" or family == "qwen3" else LOGITS]
    hybrid = write_hybrid_checkpoint(tmp_path / "hybrid", specs, family, **overrides)
    stock = stock_of(tmp_path / "hybrid", tmp_path / "stock")
    ids = tiny_tokens(2, 60)
    assert relative_rms(stock(ids).logits, hybrid(ids).logits) <= LIMIT


@torch.no_grad()
def test_bfloat16_stays_bfloat16(tmp_path):
    specs = [FULL, REMOVED, WINDOW, FULL]
    write_hybrid_checkpoint(tmp_path / "hybrid", specs, dtype=torch.bfloat16)
    assert stock_of(tmp_path / "hybrid", tmp_path / "stock").dtype == torch.bfloat16
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "stock", dtype=torch.float32).eval()
    hybrid = load_checkpoint(tmp_path / "hybrid", dtype=torch.float32)
    ids = tiny_tokens(2, 60)
    assert relative_rms(stock(ids).logits, hybrid(ids).logits) <= LIMIT


@pytest.mark.parametrize(("shard", "count"), [("300KB", 2), ("40KB", None)])
def test_tensors_move_down_and_shards_stay_shards(tmp_path, shard, count):
    specs = [FULL, REMOVED, FULL, FULL]
    hybrid = write_hybrid_checkpoint(tmp_path / "hybrid", specs, shard=shard)
    stock_of(tmp_path / "hybrid", tmp_path / "stock")
    files = sorted(p.name for p in (tmp_path / "stock").glob("*.safetensors"))
    assert len(files) == count if count else len(files) > 2
    index = json.loads((tmp_path / "stock/model.safetensors.index.json").read_text())
    held = {file: load_file(tmp_path / "stock" / file) for file in files}
    assert index["weight_map"] == {n: file for file in files for n in held[file]}
    tensors = {name: tensor for shard in held.values() for name, tensor in shard.items()}
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    old = hybrid.state_dict()
    for now, before in ((0, 0), (1, 2), (2, 3)):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(tensors[name.format(now)], old[name.format(before)])
    assert len(tensors) == len(old)


def test_leftovers_of_a_removed_layer_are_not_written(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [FULL, REMOVED, FULL, FULL])
    file = tmp_path / "hybrid/model.safetensors"
    leftover = {"model.layers.1.mlp.up_proj.weight": torch.ones(96, 48)}
    save_file(load_file(file) | leftover, file, metadata={"format": "pt"})
    stock_of(tmp_path / "hybrid", tmp_path / "stock")
    with safe_open(tmp_path / "stock/model.safetensors", framework="pt") as weights:
        assert not any(name.startswith("model.layers.3.") for name in weights.keys())  # noqa: SIM118


def test_a_file_in_which_nothing_moves_is_the_same_file(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [WINDOW, FULL, FULL, FULL])
    stock_of(tmp_path / "hybrid", tmp_path / "stock")
    first, second = (tmp_path / name / "model.safetensors" for name in ("hybrid", "stock"))
    assert first.read_bytes() == second.read_bytes()


def test_the_export_carries_the_tokenizer_and_no_code(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [WINDOW, REMOVED, FULL, FULL])
    result = export_stock(tmp_path / "hybrid", tmp_path / "out")
    assert result.relative_rms <= 1e-5
    assert result.model_dump(include={"to", "model_type", "layers"}) == {
        "to": "stock", "model_type": "ministral", "layers": 3,
    }  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["MinistralForCausalLM"]
    assert config["layer_types"] == ["sliding_attention", "full_attention", "full_attention"]
    assert config["sliding_window"] == 6
    assert {p.name for p in tmp_path.iterdir()} == {"hybrid", "out"}


@pytest.mark.parametrize(
    ("specs", "family", "overrides", "lines"),
    [
        (
            [SINKS, SINKS, FULL, SINKS],
            "llama",
            {},
            ["layers 0-1: attention sinks (2) beside", "layer 3: attention sinks (2)"],
        ),
        (
            [LINEAR, NO_ATTENTION, FULL, {**FULL, "feed_forward": {"kind": "none"}}],
            "qwen3",
            {},
            [
                "layer 0: a linear map",
                "layer 1: a feed-forward without attention",
                "layer 3: no feed-forward",
            ],
        ),
        (
            [WINDOW, WIDER, FULL, FULL],
            "qwen2",
            {},
            ["windows differ", "layer 0: a window of 6; layer 1: a window of 9"],
        ),
        (
            [WINDOW, FULL, FULL, FULL],
            "llama",
            {"attention_bias": True, "mlp_bias": True},
            ["ministral has no biases: attention_bias, attention_output_bias, mlp_bias"],
        ),
        ([REMOVED] * 4, "llama", {}, ["every layer is removed"]),
        (
            [LOGITS, FULL, FULL, FULL],
            "qwen3",
            {},
            ["the family qwen3 has no stock class with sink logits", "llama, mistral, qwen2"],
        ),
    ],
)
def test_what_stands_in_the_way_is_named(tmp_path, specs, family, overrides, lines):
    hybrid = write_hybrid_checkpoint(tmp_path / "hybrid", specs, family, **overrides)
    assert hybrid.config.capabilities["stock"]["model_type"] is None
    with pytest.raises(InputError) as caught:
        export_stock(tmp_path / "hybrid", tmp_path / "out")
    for line in lines:
        assert line in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["hybrid"]


@pytest.mark.parametrize("kind", ["gated_recurrence", "local", "prefill_selection", "selective"])
def test_a_mixer_that_no_stock_class_knows_is_an_obstacle(kind):
    spec = {"mixer": {"kind": kind, "window": 8, "sinks": 0}, "feed_forward": {"kind": "mlp"}}
    form = stock_form("llama", [FULL, spec, spec], [])
    assert form == {"model_type": None, "obstacles": [f"layers 1-2: mixer {kind}"]}


def test_a_family_without_windows_keeps_only_full_layers():
    assert stock_form("another", [FULL, REMOVED], [])["model_type"] == "another"
    assert stock_form("another", [WINDOW], [])["obstacles"] == [
        "the family another has no stock class with sliding windows"
    ]


def test_an_export_that_differs_fails_and_leaves_nothing(tmp_path):
    """The window in the config is not the one that the weights are asked with."""
    write_hybrid_checkpoint(tmp_path / "hybrid", [WINDOW, FULL, FULL, FULL])
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "hybrid", other)
    fields = json.loads((other / "config.json").read_text())
    fields["layer_specs"][0]["mixer"]["window"] = 7
    (other / "config.json").write_text(json.dumps(fields))
    stock_of(other, tmp_path / "stock")
    config = HybridConfig.from_pretrained(tmp_path / "hybrid")
    with pytest.raises(IntegrityError, match=r"relative RMS of \d\.\de-\d\d, the maximum"):
        assert_agreement(tmp_path / "hybrid", config, tmp_path / "stock")


def test_a_damaged_checkpoint_leaves_nothing(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [REMOVED, FULL, FULL, FULL])
    file = tmp_path / "hybrid/model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match="do not match"):
        export_stock(tmp_path / "hybrid", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hybrid"]


def test_a_folder_that_exists_is_not_touched(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [FULL] * 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        export_stock(tmp_path / "hybrid", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_the_probe_is_longer_than_any_window():
    for window in (6, 300):
        specs = [{"mixer": {"kind": "streaming", "sinks": 4, "window": window}}, FULL]
        config = HybridConfig(num_hidden_layers=2, layer_specs=specs, vocab_size=50)
        ids = probe(config)
        assert ids.shape[1] >= window + 4 + 64
        assert torch.equal(ids, probe(config))
        assert ids.max() < 50
