"""Low-rank adapters on a model, and the weight changes that they come to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tasks.errors import InputError

ADAPTER = "healing"


def attach(model: nn.Module, *, rank: int, alpha: int, targets: tuple[str, ...], seed: int) -> None:
    """Freeze ``model`` and put a LoRA adapter on every linear layer that ``targets`` name.

    W x becomes W x + alpha / rank * B A x, with A random by ``seed`` and B zero: nothing changes
    at first. Adapters are fp32 whatever the weights are. Reference: arXiv 2106.09685, eq. 3.

    Raises:
        InputError: a target names no linear layer, or the output projection, which stays frozen.
    """
    head = model.get_output_embeddings()
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    offered = sorted({name.rpartition(".")[2] for name, m in linear if m is not head})
    for target in targets:
        if target not in offered:
            raise InputError(
                f"{target!r} is no linear layer that can be trained",
                where="finetune.targets",
                expected=f"some of {', '.join(offered)}",
            )
    model.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):  # adapters are made on the CPU, then moved
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' parameters by name: all that an optimiser gets."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weight_changes(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """alpha / rank * B A of each adapted layer, by the name of its weight in the plain model.

    Returns:
        name -> call that computes the change: fp32, (out, in), on the CPU. Calls, because all
        changes together may be as large as the model.
    """
    return {
        f"{name}.weight": partial(_change, module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def _change(layer: LoraLayer) -> Tensor:
    return layer.get_delta_weight(ADAPTER).detach().to("cpu", torch.float32)
