"""Cross entropy of the next token of the text."""

from layerwright.tasks.finetune.objectives.base import LogitObjective


class NextToken(LogitObjective):
    """Mean of -log q(next token), the loss of pretraining. It needs no base."""

    name = "next_token"
    needs_base = False
    term = "next_token"
