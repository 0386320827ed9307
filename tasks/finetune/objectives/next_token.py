"""Cross entropy of the next token of the text."""

from typing import ClassVar, Literal

from layerwright.tasks.finetune.objectives.base import LogitObjective


class NextToken(LogitObjective):
    """Mean of -log q(next token), the loss of pretraining. It needs no base."""

    name: ClassVar[str] = "next_token"
    needs_base: ClassVar[bool] = False
    term: ClassVar[Literal["next_token", "kl"]] = "next_token"
