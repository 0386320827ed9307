"""Cross entropy of the text's own next token."""

from typing import ClassVar, Literal

from layerwright.tasks.finetune.objectives.base import LogitObjective


class NextToken(LogitObjective):
    """Mean of -log q(next token): what pretraining minimised. It needs no base."""

    name: ClassVar[str] = "next_token"
    needs_base: ClassVar[bool] = False
    term: ClassVar[Literal["next_token", "kl"]] = "next_token"
