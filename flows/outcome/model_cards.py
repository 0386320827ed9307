"""Collect the facts of a model card from the records of a checkpoint and of its run."""

import json
from pathlib import Path
from typing import Any

from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import LINEAGE
from layerwright.tasks.report.model_card import CardEvidence, CardFacts


def card_facts(
    lineage: dict[str, Any],
    plan: ConversionPlan,
    checkpoint_sha256: str | None,
    evidence: CardEvidence | None,
) -> CardFacts:
    """Facts from the lineage that conversion wrote into the checkpoint (``layerwright.json``)."""
    base = lineage["base"]
    return CardFacts(
        base_source=base["source"],
        base_sha256=base["sha256"],
        license=base.get("license"),
        plan=plan,
        checkpoint_sha256=checkpoint_sha256,
        evidence=evidence,
    )


def facts_of_folder(folder: Path, run: RunFolder | None) -> CardFacts | None:
    """Facts of a checkpoint on disk; None if it lacks the files that conversion writes.

    Args:
        run: the finished run that made the checkpoint; its evidence goes into the card.
    """
    lineage, plan = folder / LINEAGE, folder / "plan.json"
    if not (lineage.is_file() and plan.is_file()):
        return None
    evidence = _evidence(run) if run else None
    return card_facts(
        json.loads(lineage.read_text()),
        ConversionPlan.model_validate_json(plan.read_bytes()),
        evidence.evaluation.candidate_sha256 if evidence else None,
        evidence,
    )


def _evidence(run: RunFolder) -> CardEvidence:
    summary = run.summary()
    return CardEvidence(
        run_id=run.run_id,
        evaluation=EvalReport.model_validate_json((run.path / "evaluation.json").read_bytes()),
        decision=GateDecision.model_validate_json((run.path / "decision.json").read_bytes()),
        cost=summary.cost if summary else None,
    )
