"""The error of each converted layer's attention output against the base's."""

from torch import Tensor

from layerwright.tasks.finetune.objectives.base import LayerObjective


class AttentionOutput(LayerObjective):
    """sum_t ||a_t - a*_t||² / sum_t ||a*_t||², mean over the converted layers that mix tokens.

    a is the output of the student's mixer and a* that of the base's attention, both on the base's
    input of that layer. So the error of a layer does not include the errors of other layers, and no
    logits are computed. This is the first stage of LoLCATs (attention transfer, arXiv 2410.10254),
    divided by the base's energy, so that layers of different scale have equal weight.
    """

    name = "attention_output"
    unit = "share of energy"

    def of_layer(self, output_BTD: Tensor, target_BTD: Tensor, real_BT: Tensor) -> Tensor:
        output, target, real = output_BTD.float(), target_BTD.float(), real_BT[..., None]
        error = ((output - target).square() * real).sum((1, 2))
        return error / (target.square() * real).sum((1, 2)).clamp_min(1e-12)
