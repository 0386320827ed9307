"""Loads an exported model as a serving host does and keeps its logits; run by path, not imported.

Arguments: FOLDER IDS ANSWERS OPTIONS. IDS is a safetensors file with `ids` (B, T), ANSWERS one to
write with `logits` (B, k, V) of the last k tokens, OPTIONS a JSON object for `from_pretrained`,
but for `logits_to_keep`, which is k.
"""

import json
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main(folder: str, ids: str, answers: str, options: str) -> None:
    chosen = json.loads(options)
    kept = chosen.pop("logits_to_keep")
    model, found = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **chosen
    )
    wrong = {part: sorted(map(str, names)) for part, names in found.items() if names}
    if wrong:
        sys.exit(f"the weights do not fit the config: {wrong}")
    with torch.inference_mode():
        logits = model.eval()(load_file(ids)["ids"], logits_to_keep=kept).logits
    save_file({"logits": logits.contiguous()}, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
