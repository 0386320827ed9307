"""The functions of the report steps; each writes one HTML file."""

from pathlib import Path

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.run import Page
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.report.bundle import ReportBundle, RequalificationBundle, SurveyBundle
from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.requalification import render_requalification
from layerwright.tasks.report.survey import render_survey


def write_report(bundle: ReportBundle, path: str, ctx: Context) -> Page:
    """Write the page of a convert run, accepted or rejected."""
    return _written(path, render_page(bundle))


def write_survey(bundle: SurveyBundle, path: str, ctx: Context) -> Page:
    """Write the page of a survey."""
    return _written(path, render_survey(bundle))


def write_requalification(bundle: RequalificationBundle, path: str, ctx: Context) -> Page:
    """Write the page of a requalification."""
    return _written(path, render_requalification(bundle))


def _written(path: str, html: str) -> Page:
    write_atomically(Path(path), html.encode())
    return Page(uri=Path(path).resolve().as_uri())
