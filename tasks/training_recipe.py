"""How weights are trained, as recipes say it: texts, stages, adapters, validation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.contracts import Contract, Count, Number, Positive, Share, Spec

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


class HealingStage(TrainingStage):
    """One stage of healing: what is minimised, and what may change for it.

    Only ``steps`` has to be said. Objective, targets and rate are those that healed best where
    context was taken away; rows and the other conversions: docs/healing.md, "Where to begin".

    ``parts`` are trained in full beside the adapter: ``linear`` maps, the learned ``mix`` of gated
    recurrences, and their ``decay`` biases; at ``parts_learning_rate``, or at the stage's. Weights
    trained in full want a lower one than adapters.
    """

    objectives: tuple[Spec, ...] = Field(default=(Spec(name="logit_kl"),), min_length=1)
    parts: tuple[Literal["linear", "mix", "decay"], ...] = ()
    parts_learning_rate: Number | None = Field(default=None, gt=0)
    window_dropout: WindowDropout | None = None

    @model_validator(mode="after")
    def _something_to_train(self) -> HealingStage:
        if self.adapter.kind == "none" and not self.parts:
            raise ValueError("an adapter, or some parts: a stage with neither trains nothing")
        if self.parts_learning_rate is not None and not self.parts:
            raise ValueError("parts for parts_learning_rate, or none of both")
        names = [spec.name for spec in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"each objective once, not {', '.join(names)}")
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


class FinetuneOptions(TrainingText):
    """Healing: stages of training with the base as teacher, one after the other."""

    stages: tuple[HealingStage, ...] = Field(min_length=1)
    validation: ValidationOptions | None = None


class RegularizeOptions(TrainingText, TrainingStage):
    """Training before removal (TRSP stage 2, arXiv 2505.18232).

    Next-token loss plus ``weight`` times what the doomed layers change in the stream, so that they
    can go. Doomed are the layers whose strategy in the plan is one of ``strategies``. Of several
    ``weights`` each is tried for ``sweep_steps``, and the best on ``validation`` is taken.
    """

    strategies: tuple[Literal["remove", "linear"], ...] = Field(default=("remove",), min_length=1)
    norm: Literal["l2", "l1"] = "l2"
    weights: tuple[Annotated[Number, Field(gt=0)], ...] = Field(
        default=(0.1,), min_length=1, max_length=8
    )
    sweep_steps: Positive = 8
    validation: ValidationOptions | None = None

    @model_validator(mode="after")
    def _sweep_is_scored(self) -> RegularizeOptions:
        if len(self.weights) > 1 and self.validation is None:
            raise ValueError("a validation text, on which the weights are compared")
        return self
