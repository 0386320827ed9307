"""What a model version is accompanied by: a few small files and the figures, not the weights."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts import (
    CheckpointRef,
    Contract,
    ConversionPlan,
    EvalReport,
    GateDecision,
    identity,
)
from tasks.store import MANIFEST


@dataclass(frozen=True)
class Evidence:
    """Everything that speaks for one checkpoint.

    Attributes:
        page: the HTML report, where there is one.
    """

    candidate: CheckpointRef
    plan: ConversionPlan
    report: EvalReport
    decision: GateDecision
    page: Path | None = None

    @property
    def sha256(self) -> str:
        """Digest of what was shown, without when it was decided.

        The same measurements judged again are no new evidence: they do not extend a version's
        expiry.
        """
        return identity([self.candidate, self.plan, self.report, self.decision.checks])

    def write(self, folder: Path, tree: Path) -> None:
        """Lay the files into ``folder``; ``tree`` is the verified checkpoint."""
        documents: dict[str, Contract] = {
            "plan.json": self.plan,
            "evaluation.json": self.report,
            "gate.json": self.decision,
            "checkpoint.json": self.candidate,
        }
        for name, document in documents.items():
            (folder / name).write_text(document.model_dump_json(indent=1), encoding="utf-8")
        shutil.copyfile(tree / MANIFEST, folder / MANIFEST)
        if self.page is not None:
            shutil.copyfile(self.page, folder / "report.html")

    def metrics(self) -> dict[str, float]:
        """Figures by ``arm/metric``; what could not be measured is left out."""
        return {
            f"{m.arm}/{_allowed(m.metric)}": m.value
            for m in self.report.measurements
            if m.value is not None
        }


def _allowed(metric: str) -> str:
    """The metric's name in the characters that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-. /:" else "_" for c in metric)
