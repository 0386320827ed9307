"""What a stage may change of a model, and what it came to."""

from __future__ import annotations

from collections.abc import Collection

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.recipe.training import AdapterOptions

ADAPTER = "healing"
PARTS = {
    "linear": (".linear.weight", ".linear.bias"),
    "mix": (".self_attn.mix",),
    "decay": (".self_attn.decay_bias",),
}
MADE_BY = {  # for messages: what gives a model the part
    "linear": "the strategy linear",
    "mix": "gated_recurrence with learned_mix",
    "decay": "gated_recurrence with decay: statistics",
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
    """Freeze a model but for what a stage trains.

    ``lora`` makes W x into W x + s B A x, with A random by ``seed`` and B zero, so that nothing
    changes at first; s = alpha / rank (arXiv 2106.09685, eq. 3), or alpha / sqrt(rank) with
    rsLoRA (arXiv 2312.03732); DoRA (arXiv 2402.09353) trains each output's magnitude besides.
    ``full`` frees all weights of the layers and the final norm. Embeddings and head stay frozen:
    the loss on logits relies on it. What is trained is fp32 whatever the weights are.

    Args:
        parts: small parts that are trained in full besides.
        mixers_of: where only these layers' mixers see the loss, nothing else is freed.
        where: the stage's place in the recipe, for messages.

    Returns:
        The trained parameters by name: all that an optimiser gets.

    Raises:
        InputError: a target that names no linear layer that can be trained, or a part that the
            model has not.
    """
    model.requires_grad_(False)
    chosen = _part_names(model, parts, where)
    targets = _targets(model, adapter, where)

    def seen(name: str) -> bool:
        if mixers_of is None:
            return True
        layer, _, rest = name.removeprefix(LAYERS).partition(".")
        in_mixer = rest.startswith(("self_attn", "input_layernorm"))
        return name.startswith(LAYERS) and int(layer) in mixers_of and in_mixer

    if adapter.kind == "full":
        named = model.named_parameters()
        chosen |= {name for name, _ in named if name.startswith((LAYERS, NORM))}
    wanted = [name for name in targets if seen(name)]
    if wanted:
        for part in chosen:
            if part.rpartition(".")[0] in wanted:
                raise InputError(
                    f"{part} would be trained twice, by an adapter and in full",
                    where=f"{where}.parts",
                    expected="it among the adapter's targets or among the parts",
                )
        config = LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            target_modules=wanted,
            lora_dropout=0.0,
            use_rslora=adapter.rslora,
            use_dora=adapter.dora,
        )
        with torch.random.fork_rng(devices=[]):  # adapters are made on the CPU, then moved
            torch.default_generator.manual_seed(seed)
            inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    for name, parameter in model.named_parameters():
        if name in chosen and seen(name):
            parameter.requires_grad = True
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trained(model)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def merge(model: HybridForCausalLM) -> dict[str, Tensor]:
    """Fold the adapters into their weights, in fp32.

    Returns:
        Every weight that the stage may have changed, by its name in the plain model: fp32 and on
        the CPU.
    """
    changed = {}
    adapted = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    for name, layer in adapted.items():
        weight = layer.get_base_layer().weight
        weight.data = weight.data.float()  # the sum is taken in fp32, whatever the weights are
        layer.merge(adapter_names=[ADAPTER])
        changed[f"{name}.weight"] = layer.get_base_layer().weight
    for name, parameter in trained(model).items():
        if not any(name.startswith(f"{prefix}.") for prefix in adapted):
            changed[name] = parameter
    return {name: tensor.detach().to("cpu", torch.float32) for name, tensor in changed.items()}


def split_by_parts(
    parameters: dict[str, nn.Parameter], parts: Collection[str]
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Trained parameters by name: those of no part, and those of the parts."""
    endings = tuple(ending for part in parts for ending in PARTS[part])
    mine = {name: p for name, p in parameters.items() if name.endswith(endings)}
    return {name: p for name, p in parameters.items() if name not in mine}, mine


def give(model: HybridForCausalLM, weights: dict[str, Tensor]) -> None:
    """Put weights that earlier stages changed into a plain model; they stay fp32."""
    parameters = dict(model.named_parameters())
    for name, tensor in weights.items():
        parameters[name].data = tensor.to(parameters[name].device)


def _targets(model: HybridForCausalLM, adapter: AdapterOptions, where: str) -> list[str]:
    """Full names of the linear layers that the adapter goes on."""
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
                f"{target!r} is no linear layer that can be trained",
                where=f"{where}.adapter.targets",
                expected=f"some of {', '.join(sorted(set(linear.values())))}",
            )
    return [name for name, last in linear.items() if last in adapter.targets]


def _part_names(model: HybridForCausalLM, parts: Collection[str], where: str) -> set[str]:
    names, found = [name for name, _ in model.named_parameters()], set()
    for part in parts:
        mine = {name for name in names if name.endswith(PARTS[part])}
        if not mine:
            raise InputError(
                f"the converted model has no part {part!r}",
                where=f"{where}.parts",
                expected=f"a plan in which some layer has it: {MADE_BY[part]}",
                remedy="leave it out, or convert a layer that way",
            )
        found |= mine
    return found
