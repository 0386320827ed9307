"""Each converted layer's attention output against the base's, layer by layer."""

from typing import ClassVar

from torch import Tensor

from layerwright.tasks.finetune.objectives.base import LayerObjective


class AttentionOutput(LayerObjective):
    """sum_t ||a_t - a*_t||² / sum_t ||a*_t||², mean over the converted layers that mix tokens.

    a is what the student's mixer adds to the stream and a* what the base's attention adds, both
    from the base's own input of that layer, so that no layer answers for another and no logits are
    computed. The first stage of LoLCATs (attention transfer, arXiv 2410.10254), divided by
    the base's energy so that layers of different scale count alike.
    """

    name: ClassVar[str] = "attention_output"
    unit: ClassVar[str] = "share of energy"

    def of_layer(self, output_BTD: Tensor, wanted_BTD: Tensor, real_BT: Tensor) -> Tensor:
        output, wanted, real = output_BTD.float(), wanted_BTD.float(), real_BT[..., None]
        missed = ((output - wanted).square() * real).sum((1, 2))
        return missed / (wanted.square() * real).sum((1, 2)).clamp_min(1e-12)
