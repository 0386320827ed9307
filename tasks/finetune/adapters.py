"""LoRA adapters and fully trained parts: attach them for a stage, and merge them after it."""

from collections.abc import Collection
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.recipe.training import AdapterOptions

ADAPTER = "healing"
PARTS = {  # the endings of its parameters, and the strategy that creates it
    "linear": ((".linear.weight", ".linear.bias"), "the strategy linear"),
    "mix": ((".self_attn.mix",), "gated_recurrence with learned_mix"),
    "decay": ((".self_attn.decay_bias",), "gated_recurrence with decay: statistics"),
    "sinks": ((".self_attn.sinks",), "the strategy window"),
}
LAYERS, NORM = "model.layers.", "model.norm."


def attach(
    model: HybridForCausalLM,
    adapter: AdapterOptions,
    *,
    seed: int,
    parts: Collection[str] = (),
    mixers_of: Collection[int] | None = None,
    where: str = "finetune",
) -> dict[str, nn.Parameter]:
    """Attach a LoRA adapter or unfreeze weights, freeze all others; return the trained, by name.

    ``lora`` replaces W x with W x + s B A x. A is random by ``seed`` and B is zero, so the model's
    output does not change at first. s = alpha / rank (arXiv 2106.09685, eq. 3), or
    alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732). DoRA (arXiv 2402.09353) also trains the
    magnitude of each output. ``full`` unfreezes all weights of the layers and the final norm.
    Embeddings and head always stay frozen, as `distillation_loss` requires. Trained weights are
    fp32, whatever the dtype of the model.

    ``parts`` are small parts, trained in full beside the adapter. With ``mixers_of``, only the
    mixers of these layers are trained. ``where`` is the stage's recipe field, for error messages.
    InputError if a target is not a trainable linear layer, or the model does not have a part.
    """
    model.requires_grad_(False)
    unfrozen: set[str] = set()
    for part in parts:
        endings, strategy = PARTS[part]
        matching = {name for name, _ in model.named_parameters() if name.endswith(endings)}
        if not matching:
            raise InputError(
                f"the converted model has no part {part!r}",
                where=f"{where}.parts",
                expected=f"a plan with a layer that has it: {strategy}",
                remedy="remove the part, or convert a layer with that strategy",
            )
        unfrozen |= matching

    def in_scope(name: str) -> bool:
        if mixers_of is None or not name.startswith(LAYERS):
            return mixers_of is None
        layer, _, rest = name.removeprefix(LAYERS).partition(".")
        return int(layer) in mixers_of and rest.startswith(("self_attn", "input_layernorm"))

    if adapter.kind == "full":
        named = model.named_parameters()
        unfrozen |= {name for name, _ in named if name.startswith((LAYERS, NORM))}
    targets = [name for name in _targets(model, adapter, where) if in_scope(name)]
    if targets:
        for part in unfrozen:
            if part.rpartition(".")[0] in targets:
                raise InputError(
                    f"{part} would be trained twice, by an adapter and in full",
                    where=f"{where}.parts",
                    expected="it either among the adapter's targets or among the parts",
                )
        config = LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            target_modules=targets,
            lora_dropout=0.0,
            use_rslora=adapter.rslora,
            use_dora=adapter.dora,
        )
        with torch.random.fork_rng(devices=[]):  # peft creates adapters on the CPU, then moves them
            torch.default_generator.manual_seed(seed)
            inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    for name, parameter in model.named_parameters():
        if name in unfrozen and in_scope(name):
            parameter.requires_grad = True
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainable(model)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters with a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def merge(model: HybridForCausalLM) -> dict[str, Tensor]:
    """Merge the adapters into their weights; return every trained weight, in fp32 on the CPU. The
    names are those of the model without adapters.
    """
    changed = {}
    adapted: dict[str, Any] = {  # peft does not declare the type of `merge`
        name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
    }
    for name, layer in adapted.items():
        linear = layer.get_base_layer()
        linear.weight.data = linear.weight.data.float()  # peft adds in the dtype of the weight
        layer.merge(adapter_names=[ADAPTER])
        changed[f"{name}.weight"] = linear.weight
    for name, parameter in trainable(model).items():
        if not any(name.startswith(f"{prefix}.") for prefix in adapted):
            changed[name] = parameter
    return {name: tensor.detach().to("cpu", torch.float32) for name, tensor in changed.items()}


def split_by_parts(
    parameters: dict[str, nn.Parameter], parts: Collection[str]
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Split trained parameters into those that belong to no part, and those of the parts."""
    endings = tuple(ending for part in parts for ending in PARTS[part][0])
    of_parts = {name: p for name, p in parameters.items() if name.endswith(endings)}
    return {name: p for name, p in parameters.items() if name not in of_parts}, of_parts


def apply_weights(model: HybridForCausalLM, weights: dict[str, Tensor]) -> None:
    """Replace weights of a model without adapters by those of earlier stages; they stay fp32."""
    parameters = dict(model.named_parameters())
    for name, tensor in weights.items():
        parameters[name].data = tensor.to(parameters[name].device)


def _targets(model: HybridForCausalLM, adapter: AdapterOptions, where: str) -> list[str]:
    """Full names of the linear layers that get an adapter."""
    if adapter.kind != "lora":
        return []
    head = model.get_output_embeddings()
    linear = {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    for target in adapter.targets:
        if target not in linear.values():
            raise InputError(
                f"{target!r} is not a trainable linear layer",
                where=f"{where}.adapter.targets",
                expected=f"some of {', '.join(sorted(set(linear.values())))}",
            )
    return [name for name, last in linear.items() if last in adapter.targets]
