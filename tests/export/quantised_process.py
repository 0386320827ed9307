"""A checkpoint loaded with int8 weights as a serving host does; prints figures as JSON.

Arguments: FOLDER, a converted checkpoint, and SAVED, a folder to save it in.
"""

import json
import sys

import torch
from torch import Tensor, nn
from torchao.quantization import Int8Tensor, Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, TorchAoConfig


def load(folder: str, **options) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options).eval()


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).square().mean() / expected.square().mean()).sqrt().item()


@torch.no_grad()
def main(folder: str, saved: str) -> None:
    torch.set_num_threads(1)
    quantised = load(folder, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))
    exact, rounded, errors = load(folder), load(folder), {}
    for name, module in quantised.named_modules():
        if isinstance(module, nn.Linear) and isinstance(module.weight, Int8Tensor):
            weight = module.weight.dequantize()
            errors[name] = relative_rms(weight, exact.get_submodule(name).weight)
            rounded.get_submodule(name).weight.copy_(weight)
    ids = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(0))
    logits = quantised(ids).logits
    cache, steps = quantised(ids[:, :17], use_cache=True).past_key_values, []
    for token in range(17, 40):
        steps.append(quantised(ids[:, token : token + 1], past_key_values=cache).logits)
    cached, uncached = (
        quantised.generate(ids, max_new_tokens=12, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    )
    quantised.save_pretrained(saved)
    figures = {
        "weights": errors,
        "to_rounded": relative_rms(logits, rounded(ids).logits),
        "to_exact": relative_rms(logits, exact(ids).logits),
        "stepwise": relative_rms(torch.cat(steps, 1), logits[:, 17:]),
        "cached_is_uncached": cached.equal(uncached),
        "again": relative_rms(load(saved)(ids).logits, logits),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
