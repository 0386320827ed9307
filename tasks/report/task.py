"""The `report` nodes of the DAG: the page of a run, accepted or rejected, and that of a survey."""

from pathlib import Path

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.report.bundle import ReportBundle, SurveyBundle
from layerwright.tasks.report.requalification_bundle import RequalificationBundle


class Page(Contract):
    """Where a report lies."""

    uri: str


@node("report", cached=False)
def write_report(bundle: ReportBundle, path: str, *, ctx: Context) -> Page:
    """Everything a run found out -> one HTML file that needs no network."""
    from layerwright.tasks.disk import write_atomically
    from layerwright.tasks.report.page import render_page

    write_atomically(Path(path), render_page(bundle).encode())
    return Page(uri=Path(path).resolve().as_uri())


@node("report", cached=False)
def write_survey(bundle: SurveyBundle, path: str, *, ctx: Context) -> Page:
    """Everything a survey found out -> one HTML file that needs no network."""
    from layerwright.tasks.disk import write_atomically
    from layerwright.tasks.report.survey import render_survey

    write_atomically(Path(path), render_survey(bundle).encode())
    return Page(uri=Path(path).resolve().as_uri())


@node("report", cached=False)
def write_requalification(bundle: RequalificationBundle, path: str, *, ctx: Context) -> Page:
    """What a registered version measures now, and before -> one HTML file."""
    from layerwright.tasks.disk import write_atomically
    from layerwright.tasks.report.requalification import render_requalification

    write_atomically(Path(path), render_requalification(bundle).encode())
    return Page(uri=Path(path).resolve().as_uri())
