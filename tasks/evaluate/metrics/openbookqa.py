"""OpenBookQA: elementary science questions that need a fact and common sense."""

from layerwright.tasks.evaluate.zero_shot import Labelled, ZeroShot


class OpenBookQARow(Labelled):
    strips = True
    question_stem: str


class OpenBookQA(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: OpenBookQA (arXiv 1809.02789).

    The prompt does not include the facts of the "book".
    """

    name = "openbookqa"
    row = OpenBookQARow
