"""How weights are trained, as recipes say it: texts, stages, adapters, validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Count, Number, Positive, Share

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class TrainingText(Contract):
    """What a training reads, and how often its state is kept.

    ``documents``: ``packed`` end to end with EOS between two, cut into rows of ``row_tokens``; or
    ``separate``, one a row, cut or padded. ``loss_on``: all tokens, or those of the assistant's
    turns of chat data.
    """

    text: str
    row_tokens: Positive = 512
    documents: Literal["packed", "separate"] = "packed"
    loss_on: Literal["all", "assistant"] = "all"
    checkpoint_every: Positive = 10


class AdapterOptions(Contract):
    """What a stage trains of the big weights.

    ``lora``: low-rank adapters on the linear layers that ``targets`` name, by default all of
    attention and MLP (``rslora``: scaled by alpha / sqrt(rank), ``dora``: with a trained
    magnitude). ``full``: every weight of the layers and the final norm; embeddings and head stay.
    ``none``: only the stage's ``parts``.
    """

    kind: Literal["lora", "full", "none"] = "lora"
    rank: Positive = 16
    alpha: Positive = 32
    targets: tuple[str, ...] = Field(default=PROJECTIONS, min_length=1)
    rslora: bool = False
    dora: bool = False


class WindowDropout(Contract):
    """Share of rows whose window is switched off in gated recurrences, from ``start`` to ``end``.

    It changes linearly over the stage's steps (arXiv 2510.05901).
    """

    start: Share = 0.5
    end: Share = 0.0


class TrainingStage(Contract):
    """Optimiser, schedule and precision of one stretch of training.

    A step reads ``rows_per_step`` rows, ``rows_at_once`` of them together; both change memory and
    speed, the first also the gradient's noise. ``precision`` is the arithmetic of the student;
    trained weights are fp32 always.
    """

    steps: Positive
    rows_per_step: Positive = 1
    rows_at_once: Positive = 1
    learning_rate: Number = Field(default=5e-4, gt=0)
    warmup_steps: Count = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Number = Field(default=0.0, ge=0)
    max_grad_norm: Number = Field(default=1.0, gt=0)
    adapter: AdapterOptions = AdapterOptions()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _warm_up_ends(self) -> TrainingStage:
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps below the {self.steps} steps, not {self.warmup_steps}: nothing "
                "would be left after the warm-up"
            )
        return self


class ValidationOptions(Contract):
    """Held-out rows, cut as the training's are; measured every ``every_tokens`` tokens.

    A stage stops after ``patience`` measurements without a new best (None: never), and always hands
    on its best state.
    """

    text: str
    rows: Positive = 4
    every_tokens: Positive = 10_000
    patience: Positive | None = None
