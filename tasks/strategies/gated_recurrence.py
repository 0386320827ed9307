"""Gated linear attention plus a narrow sliding window, from attention's weights."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence as Mixer
from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.decay import decay_bias
from layerwright.tasks.strategies.fitting.stretch import Stretch


class GatedRecurrence(Strategy):
    """The layer reads distant tokens through a fixed-size state and recent tokens through a window.

    o_t = alpha y_t + beta attention(q_t, the last ``window`` tokens). With ``gate`` "gla",
    y_t = softmax(q_t) S_t, S_t = G_t ⊙ S_{t-1} + softmax(k_t)ᵀ v_t and log G = logsigmoid(k) / 16;
    the mixer documents "hgrn2" and "gsa". The weights do not change. The KV cache is limited to the
    window and one fp32 state per key/value head. Without healing the loss is large, because the
    state was never trained. Liger (arXiv 2503.01496) with its defaults; GLA: arXiv 2312.06635,
    HGRN2: arXiv 2404.07904, GSA: arXiv 2409.07146. Not in the paper: ``sinks`` keeps the first
    tokens visible.

    Attributes:
        gate: how the decay and the written features are computed.
        window: number of last tokens to attend to, the query's own included.
        sinks: number of first tokens that stay visible.
        alpha: share of the state's output.
        beta: share of the window's output.
        slots: number of slots of "gsa"; other gates ignore it.
        decay: "gate" computes the decay from the keys only, as in the paper. "statistics" adds a
            fitted bias per head, so that the state decays as slowly as the layer's attention looks
            back.
        learned_mix: "layer" or "head" makes alpha and beta parameters that healing can train
            (its part ``mix``): one pair for the layer or for each query head.
    """

    name = "gated_recurrence"

    gate: Literal["gla", "hgrn2", "gsa"] = "gla"
    window: int = Field(default=64, ge=1)
    sinks: int = Field(default=0, ge=0)
    alpha: float = Field(default=0.5, allow_inf_nan=False)
    beta: float = Field(default=0.5, allow_inf_nan=False)
    slots: int = Field(default=64, ge=1)
    decay: Literal["gate", "statistics"] = "gate"
    learned_mix: Literal["none", "layer", "head"] = "none"

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        mixer = self.model_dump(include={"gate", "window", "sinks", "alpha", "beta"})
        mixer |= {"kind": self.name, "decay_bias": self.decay == "statistics"}
        if self.gate == "gsa":
            mixer["slots"] = self.slots
        if self.learned_mix != "none":
            mixer["learned_mix"] = self.learned_mix
        return {**base_spec, "mixer": mixer}

    @property
    def fits(self) -> bool:
        return self.decay == "statistics" or self.learned_mix != "none"

    def fit(self, stretch: Stretch) -> dict[str, Tensor]:
        (layer,) = stretch.layers
        spec = self.layer_spec(layer.spec)["mixer"]
        tensors = {}
        with stretch.at_work(layer):
            mixer = Mixer(stretch.model.config, spec, stretch.start, donor=layer.self_attn)
            mixer.to(stretch.model.device)
            if self.decay == "statistics":
                tensors["decay_bias"] = decay_bias(stretch, mixer)
            if mixer.mix is not None:
                tensors["mix"] = mixer.mix.detach()
        return {f"model.layers.{stretch.start}.self_attn.{k}": v for k, v in tensors.items()}
