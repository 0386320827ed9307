"""ARC: grade-school science questions, the easy set or the challenge set."""

from layerwright.tasks.evaluate.zero_shot import Labelled, ZeroShot


class ArcRow(Labelled):
    question: str


class Arc(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: ARC (arXiv 1803.05457)."""

    name = "arc"
    task = "arc_easy"  # arc_challenge has the same prompts
    row = ArcRow
