"""The recipe's `finetune` block, and what it shares with `regularize`: text, stage, adapter."""

from typing import Literal, Self

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Count, Number, Positive, Share
from layerwright.tasks.recipe.component_fields import Objective

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class TrainingText(Contract):
    """The training text, and how often the training state is saved."""

    text: str
    row_tokens: Positive = 512
    # ``packed`` joins documents with EOS between them and cuts rows of ``row_tokens``; ``separate``
    # puts one document in a row, cut or padded
    documents: Literal["packed", "separate"] = "packed"
    # ``assistant``: the assistant's turns of chat data
    loss_on: Literal["all", "assistant"] = "all"
    checkpoint_every: Positive = 10  # steps between two saved states


class AdapterOptions(Contract):
    """Which weights of the layers a stage trains."""

    # ``lora``: low-rank adapters on the projections in ``targets``. ``full``: every weight of the
    # layers and the final norm, but not embeddings and head. ``none``: only the stage's ``parts``.
    kind: Literal["lora", "full", "none"] = "lora"
    rank: Positive = 16
    alpha: Positive = 32
    targets: tuple[str, ...] = Field(default=PROJECTIONS, min_length=1)  # all of attention and MLP
    rslora: bool = False  # scale by alpha / sqrt(rank)
    dora: bool = False  # train the magnitude too


class WindowDropout(Contract):
    """Share of rows for which gated recurrences work without their window (arXiv 2510.05901).

    It changes linearly from ``start`` to ``end`` over the stage's steps.
    """

    start: Share = 0.5
    end: Share = 0.0


class TrainingStage(Contract):
    """Optimiser, schedule and precision of one stage of training."""

    steps: Positive
    rows_per_step: Positive = 1  # rows per optimiser step
    rows_at_once: Positive = 1  # rows per forward and backward pass
    learning_rate: Number = Field(default=5e-4, gt=0)
    warmup_steps: Count = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Number = Field(default=0.0, ge=0)
    max_grad_norm: Number = Field(default=1.0, gt=0)
    adapter: AdapterOptions = AdapterOptions()
    # of arithmetic; trained weights are fp32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps below steps ({self.steps}), not {self.warmup_steps}: no step would "
                "be left after the warm-up"
            )
        return self


class ValidationOptions(Contract):
    """Held-out rows, built like the training rows and measured every ``every_tokens`` tokens.

    A stage passes on its best state. It stops early after ``patience`` measurements without a new
    best (None: never).
    """

    text: str
    rows: Positive = 4
    every_tokens: Positive = 10_000
    patience: Positive | None = None


class HealingStage(TrainingStage):
    """One stage of healing. Only ``steps`` is required.

    The default objective, targets and learning rate are those that recovered most quality for
    strategies that shorten the context; docs/healing.md, "Where to begin", has the other cases.
    """

    # the losses to minimise
    objectives: tuple[Objective, ...] = Field(
        default=({"name": "logit_kl"},), validate_default=True, min_length=1
    )
    # tensors trained in full, next to the adapter: ``linear`` maps, the learned ``mix`` of gated
    # recurrences, their ``decay`` biases, and the logits of windows, ``sinks``
    parts: tuple[Literal["linear", "mix", "decay", "sinks"], ...] = ()
    # by default the stage's; ``sinks`` need a much higher one, 0.2, other parts often a lower one
    parts_learning_rate: Number | None = Field(default=None, gt=0)
    window_dropout: WindowDropout | None = None

    @model_validator(mode="after")
    def _something_to_train(self) -> Self:
        if self.adapter.kind == "none" and not self.parts:
            raise ValueError("an adapter or parts: a stage with neither trains nothing")
        if self.parts_learning_rate is not None and not self.parts:
            raise ValueError("parts together with parts_learning_rate, or neither")
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"each objective once, not {', '.join(names)}")
        return self


class FinetuneOptions(TrainingText):
    """Healing: stages of training, one after the other, with the base as teacher."""

    stages: tuple[HealingStage, ...] = Field(min_length=1)
    validation: ValidationOptions | None = None
