"""A tiny Llama with its tokenizer in one GGUF file, as llama.cpp's converter would write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
from tiny import tiny_llama_config
from tiny_checkpoint import byte_tokenizer
from transformers import LlamaForCausalLM

CHAT_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
}


def write_gguf(
    path: Path, *, quantised: bool = False, pre: str = "smollm", license: str | None = None
) -> LlamaForCausalLM:
    """Write the file; returns the model whose weights are in it (before quantisation)."""
    config = tiny_llama_config(
        vocab_size=260, hidden_size=96, head_dim=16, tie_word_embeddings=True
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    writer = GGUFWriter(path, "llama")
    if license:
        writer.add_license(license)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, pre)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        for part, count in heads.items():  # llama.cpp interleaves the two halves of a rotation
            if part in name:
                rows, columns = tensor.shape
                halves = tensor.reshape(count, 2, rows // count // 2, columns)
                tensor = halves.swapaxes(1, 2).reshape(rows, columns)
        data = tensor.numpy().astype(np.float32)
        if quantised and data.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quants.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _write_tokenizer(writer: GGUFWriter, pre: str) -> None:
    tokenizer = byte_tokenizer()
    tokens = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))] + ["ĠĠ"]
    kinds = [TokenType.NORMAL] * 256 + [TokenType.CONTROL] * 3 + [TokenType.NORMAL]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["Ġ Ġ"])  # the reader wants one at least
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(258)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
