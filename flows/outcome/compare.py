"""Write the evaluation and the comparison of a compare run as JSON to its folder."""

from typing import Literal

from layerwright.flows.session.session import Session
from layerwright.tasks.contracts.comparison import SideBySide, SideBySideRun
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.references import CheckpointRef, TreeRef


def keep_comparison(
    session: Session,
    found: SideBySide,
    report: EvalReport,
    compared: dict[Literal["A", "B"], tuple[str, CheckpointRef]],
) -> SideBySideRun:
    """Write the run's files and finish its record.

    Args:
        compared: the name that the user gave, and the checkpoint.
    """
    checkpoints = {
        arm: TreeRef(uri=one.uri, sha256=one.sha256, bytes=one.bytes)
        for arm, (_, one) in compared.items()
    }
    result = SideBySideRun(
        **dict(found),
        run_id=session.run_id,
        a=compared["A"][0],
        b=compared["B"][0],
        checkpoints=checkpoints,
        base_sha256=report.base_sha256,
        seconds=session.seconds,
        cache_hits=session.run.cache_hits,
    )
    session.folder.write("evaluation.json", report.model_dump_json(indent=1))
    session.folder.write("comparison.json", result.model_dump_json(indent=1))
    session.folder.finish("compared")
    return result
