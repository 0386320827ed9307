"""The hybrid model: blocks built from layer specs, in stages that can run separately.

Shapes: B batch, T new tokens, D hidden size, V vocabulary.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.decoding import FixedDecoder
from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.placement import Placement, place_tokens


class HybridPreTrainedModel(PreTrainedModel):
    config: HybridConfig
    config_class = HybridConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HybridLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": HybridLayer}


class HybridModel(HybridPreTrainedModel):
    """Embeddings, blocks and final norm.

    The stages of `forward` are public: `prepare`, `run_layers` (from any layer on) and `norm`.
    """

    def __init__(self, config: HybridConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        layers = (HybridLayer(config, index) for index in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)  # type: ignore[arg-type] # any config with rope fields
        self.gradient_checkpointing = False
        self.post_init()

    def prepare(self, input_ids: Tensor, *masks: Any) -> tuple[Tensor, Placement]:
        """Input of layer 0, (B, T, D), and the tokens' placement; `masks` as in `place`."""
        hidden_BTD = self.embed_tokens(input_ids)
        return hidden_BTD, self.place(hidden_BTD, *masks)

    def place(
        self,
        hidden_BTD: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: HybridCache | None = None,
    ) -> Placement:
        """Placement of the new tokens. Of `hidden_BTD` only shape, dtype and device matter.

        Args:
            attention_mask: (B, slots seen + T), zero for padding on either side; None for none.
            position_ids: (B or 1, T), ascending; by default each row counts its real tokens from 0.

        Raises:
            ValueError: the mask or the positions are not valid (see `place_tokens`).
        """
        cache = past_key_values
        past = (0, None) if cache is None else (cache.seen_tokens, cache.positions)
        batch, tokens = hidden_BTD.shape[:2]
        new = batch, tokens, hidden_BTD.device, attention_mask, position_ids
        positions, contiguous = place_tokens(*new, *past)
        rotary_at = partial(self.rotary_emb, hidden_BTD[:, :0])  # rotary_emb reads only the dtype
        rotary = rotary_at(positions.clamp_min(0))
        return Placement(positions, rotary, *past, contiguous, rotary_at)

    def run_layers(
        self,
        hidden_BTD: Tensor,
        placement: Placement,
        start: int = 0,
        stop: int | None = None,
        past_key_values: HybridCache | None = None,
    ) -> Tensor:
        """Output (B, T, D) of layers start .. stop - 1, given the input of layer `start`."""
        for layer in self.layers[start:stop]:
            hidden_BTD = layer(hidden_BTD, placement, past_key_values=past_key_values)
        return hidden_BTD

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: HybridCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states after the final norm, (B, T, D); for masks and positions see `place`.

        Raises:
            ValueError: not exactly one of input_ids and inputs_embeds is given, or the cache is no
                HybridCache for these layer specs.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        cache: Any = past_key_values
        if not isinstance(cache, HybridCache | None):
            raise ValueError(
                f"past_key_values must be a HybridCache, got {type(cache).__name__}: other caches "
                "keep the wrong tokens. Leave it out, and the model creates its own cache."
            )
        if cache is not None and cache.layer_specs != self.config.layer_specs:
            raise ValueError("past_key_values belongs to a model with other layer specs")
        if use_cache and past_key_values is None:
            past_key_values = HybridCache(self.config)
        hidden_BTD = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        placement = self.place(hidden_BTD, attention_mask, position_ids, past_key_values)
        hidden_BTD = self.run_layers(hidden_BTD, placement, past_key_values=past_key_values)
        if past_key_values is not None:
            past_key_values.advance(placement, batch=hidden_BTD.shape[0])
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_BTD), past_key_values=past_key_values
        )


class HybridForCausalLM(HybridPreTrainedModel, GenerationMixin):
    """The model with its language-model head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: HybridConfig):
        super().__init__(config)
        self.model = HybridModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def set_layer_spec(self, index: int, spec: dict[str, Any]) -> HybridLayer:
        """Changes layer `index` to the whole spec `spec`, such as {"mixer": {"kind": "full"}}.

        The new layer shares the modules that both layers have. Other modules are new; a new linear
        map is zero.

        Returns:
            The old layer; `put_layer` restores it.

        Raises:
            ValueError, IndexError: the spec is not valid; there is no such layer.
        """
        index = range(self.config.num_hidden_layers)[index]
        before = self.model.layers[index]
        self.config.replace_layer_spec(index, spec)
        layer = HybridLayer(self.config, index, donor=before)
        if layer.linear is not None and before.linear is None:
            for parameter in layer.linear.parameters():
                nn.init.zeros_(parameter)
        weight = self.model.embed_tokens.weight
        self.model.layers[index] = layer.to(weight.device, weight.dtype)
        return before

    def put_layer(self, index: int, layer: HybridLayer) -> None:
        """Restores a layer that `set_layer_spec` returned, with its spec."""
        self.config.replace_layer_spec(index, layer.spec)
        self.model.layers[index] = layer

    def fixed_decoder(self, past_key_values: HybridCache, new_tokens: int) -> FixedDecoder:
        """A decoder over fixed-size tensors for the tokens after a prompt; see FixedDecoder."""
        return FixedDecoder(self, past_key_values, new_tokens)

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Logits (B, T, V) of the last layer's output: final norm, then language-model head."""
        return self.lm_head(self.model.norm(hidden_BTD))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: HybridCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V), and the loss if labels are given.

        Args:
            labels: (B, T), -100 for tokens without a loss; shifted inside.
            logits_to_keep: a number of last tokens (0 for all), or token indices.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        tokens: Any = logits_to_keep
        if isinstance(tokens, int):
            tokens = slice(-tokens if tokens else None, None)
        logits = self.lm_head(outputs.last_hidden_state[:, tokens])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss, logits, outputs.past_key_values, hidden_states=outputs.hidden_states
        )

    def _prepare_cache_for_generation(  # type: ignore[override] # passes unused arguments on
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Gives `generate` a HybridCache instead of Transformers' cache of full layers."""
        implementation = generation_config.cache_implementation
        if implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={implementation!r} is not supported: a hybrid model "
                "creates its own cache; leave the option out"
            )
        kinds = {spec["mixer"]["kind"] for spec in self.config.layer_specs or ()}
        together = sorted(kind for kind in kinds if MIXERS[kind].decides_together)
        if together and generation_config.prefill_chunk_size is not None:
            raise ValueError(
                f"prefill_chunk_size={generation_config.prefill_chunk_size} is not supported: "
                f"{', '.join(together)} selects layers during prefill and needs the whole prompt"
            )
        if generation_config.use_cache is False or model_kwargs.get("past_key_values") is not None:
            super()._prepare_cache_for_generation(  # type: ignore[misc] # a mixin's self type
                generation_config, model_kwargs, *args, **kwargs
            )
        else:
            model_kwargs["past_key_values"] = HybridCache(self.config)
