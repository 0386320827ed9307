"""KL divergence from the base's next-token distribution."""

from layerwright.tasks.finetune.objectives.base import LogitObjective


class LogitKL(LogitObjective):
    """Mean of KL(base || student) over the whole vocabulary, at temperature 1.

    Hinton et al., arXiv 1503.02531. Together with ``next_token``, both are computed in one pass.
    """

    name = "logit_kl"
    term = "kl"
