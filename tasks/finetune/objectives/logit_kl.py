"""Divergence of the next-token distribution from the base's."""

from typing import ClassVar, Literal

from layerwright.tasks.finetune.objectives.base import LogitObjective


class LogitKL(LogitObjective):
    """Mean of KL(base || student) over the whole vocabulary (Hinton et al., arXiv 1503.02531).

    At temperature 1. Where ``next_token`` is asked for as well, both come from one pass.
    """

    name: ClassVar[str] = "logit_kl"
    term: ClassVar[Literal["next_token", "kl"]] = "kl"
