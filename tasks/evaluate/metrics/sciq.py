"""SciQ: science questions with a supporting passage."""

from layerwright.tasks.evaluate.zero_shot import AnswerText, Row, ZeroShot


class SciQRow(Row):
    support: str
    question: str
    distractor1: AnswerText
    distractor2: AnswerText
    distractor3: AnswerText
    correct_answer: AnswerText


class SciQ(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: SciQ (arXiv 1707.06209)."""

    name = "sciq"
    row = SciQRow
