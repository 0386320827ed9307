"""A tiny base checkpoint on disk, with a byte-level tokenizer, and recipes that use it."""

from __future__ import annotations

from pathlib import Path

from tiny import LAYERS, VOCABULARY, tiny_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from layerwright.tasks.contracts.references import ModelRef, TreeRef

SENSITIVITY = """\
    - name: sensitivity
      rows: 1
      row_tokens: 128
      probes: [passkey]
      prompts: 2
      prompt_tokens: 400
"""
RECIPE = """\
name: tiny
seed: 3
model: {{source: "local:{folder}/model"}}
data:
  train: {{source: "local:{folder}/train.txt"}}
  calibration: {{source: "local:{folder}/calibration.txt"}}
  held-out: {{source: "local:{folder}/held-out.txt"}}
profile:
  text: calibration
  rows: 4
  row_tokens: 128
  profilers:
    - {{name: laziness, window: 16}}
    - {{name: linearity}}
{sensitivity}choose:
  context_tokens: 1024
  strategies:
    - {{name: streaming, sinks: 4, window: 28}}
  selector: {{name: milp, kv_bytes_ratio: 0.6}}
finetune:
  text: train
  row_tokens: 64
  checkpoint_every: 2
  stages:
    - objectives: [{{name: logit_kl}}, {{name: next_token, weight: 0.1}}]
      steps: 6
      adapter: {{rank: 2, alpha: 4}}
evaluate:
  metrics:
    - {{name: perplexity, texts: [held-out], rows: 4, row_tokens: 128}}
    - {{name: divergence, texts: [held-out], rows: 4, row_tokens: 128}}
    - {{name: kv_cache, tokens: [64, 1024]}}
    - {{name: overlap, texts: [held-out], against: train}}
gate:
  rules:
    - {{metric: kv_bytes.1024, max: 0.6}}
    - {{metric: perplexity.*, max: {perplexity_limit}}}
registry:
  model_name: tiny-hybrid
survey:
  metrics:
    - {{name: perplexity, texts: [held-out], rows: 4, row_tokens: 128}}
  frontier: [0.8, 0.6]
  frontier_plan: by_damage
  plans:
    dense:
      selector: {{name: keep_all}}
      strategies: &streaming [{{name: streaming, sinks: 4, window: 28}}]
    laziest:
      selector: {{name: lightransfer, layers: 2}}
      strategies: *streaming
    by_damage:
      selector: {{name: milp, kv_bytes_ratio: 0.6}}
      strategies: *streaming
    all:
      selector: {{name: convert_all}}
      strategies: *streaming
"""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte; the special tokens of the tiny model's config."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    assert len(fast) == VOCABULARY
    return fast


def write_checkpoint(folder: Path, **overrides) -> Path:
    """A random tiny Llama with its tokenizer, as a local source."""
    tiny_llama(**({"max_position_embeddings": 2048} | overrides)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def tiny_ref(tree: TreeRef, **changes) -> ModelRef:
    """What fetching says of `write_checkpoint`'s model."""
    fields = {
        "source": "local:tiny",
        "family": "llama",
        "layers": LAYERS,
        "hidden_size": 48,
        "kv_heads": 2,
        "head_dim": 8,
        "vocabulary": VOCABULARY,
        "max_positions": 2048,
        "parameters": 1,
        "dtype": "float32",
    }
    return ModelRef(**tree.model_dump(), **(fields | changes))


def write_tiny_inputs(folder: Path, perplexity_limit: float = 1.5, **overrides) -> Path:
    """Model, texts and a recipe under ``folder``; returns the recipe's path.

    ``overrides`` are fields of the model's config.
    """
    write_checkpoint(folder / "model", **overrides)
    subjects = ("The harbour master", "A tired clerk", "My neighbour's cat", "The old engine")
    verbs = ("counted", "forgot", "repaired", "followed")
    for shift, name in enumerate(("train", "calibration", "held-out")):
        lines = [
            f"{subjects[(i + shift) % 4]} {verbs[(i * i + shift) % 4]} item {i * 7} of {name}."
            for i in range(120)
        ]
        (folder / f"{name}.txt").write_text(" ".join(lines))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        RECIPE.format(sensitivity=SENSITIVITY, folder=folder, perplexity_limit=perplexity_limit)
    )
    return recipe
