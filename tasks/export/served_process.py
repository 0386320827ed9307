"""A script that loads an exported model as a serving host does, and writes its logits.

Arguments: FOLDER IDS LOGITS OPTIONS. IDS is a safetensors file with `ids` (B, T). LOGITS is the
file to write, with `logits` (B, k, V) of the last k tokens. OPTIONS is a JSON object of arguments
for `from_pretrained`, and of `logits_to_keep`, which is k.
"""

import json
import sys
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main(folder: str, ids: str, logits: str, options: str) -> None:
    arguments = json.loads(options)
    kept = arguments.pop("logits_to_keep")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **arguments
    )
    model, info = loaded
    wrong = {part: sorted(map(str, names)) for part, names in info.items() if names}
    if wrong:
        sys.exit(f"the weights do not fit the config: {wrong}")
    with torch.inference_mode():
        computed = model.eval()(load_file(ids)["ids"], logits_to_keep=kept).logits
    save_file({"logits": computed.contiguous()}, logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
