"""The page of a convert run: one self-contained HTML file."""

from layerwright.tasks.report import healing
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.dots import dot_panels
from layerwright.tasks.report.drift import drift_figures
from layerwright.tasks.report.gate import gate_section
from layerwright.tasks.report.layers import item_rows, layer_map, map_columns
from layerwright.tasks.report.lineage import digests, parameters_text, steps
from layerwright.tasks.report.lines import length_panel
from layerwright.tasks.report.looks import looks
from layerwright.tasks.report.measurements import curves, rows
from layerwright.tasks.report.profile_figures import profile_figures
from layerwright.tasks.report.recall import recall_figures
from layerwright.tasks.report.returns import crossover_sentences, return_sentence, token_count
from layerwright.tasks.report.savings import (
    adding_up,
    damage_predictions,
    planned_saving,
    planned_times,
    saving,
    tiles,
    time_rows,
)
from layerwright.tasks.report.template import template
from layerwright.tasks.report.verdict import costs, done, outcome, saves


def render_page(bundle: ReportBundle) -> str:
    """The whole page. It loads nothing from the network; the same bundle gives the same bytes."""
    all_rows = rows(bundle.evaluation)
    quality = [row for row in all_rows if row.known.part == "quality"]
    by_length = [row for row in all_rows if row.known.part == "by_length"]
    return template("page.html.j2").render(
        bundle=bundle,
        **gate_section(bundle.evaluation, bundle.gate),
        sentences=[
            ("What was done", done(bundle)),
            ("What it saves", saves(bundle)),
            ("What it costs", costs(bundle)),
            ("Outcome", outcome(bundle)),
        ],
        tiles=tiles(bundle),
        parameters=parameters_text(bundle),
        quality=quality,
        quality_panels=dot_panels(quality, all_rows, bundle.gate),
        recall=recall_figures(bundle.recall),
        overlap=[row for row in all_rows if row.known.part == "overlap"],
        by_length=by_length,
        length_panels=[length_panel(curve) for curve in curves(by_length)],
        crossovers=crossover_sentences(bundle.evaluation),
        returns=bundle.cost and return_sentence(bundle.cost),
        token_count=token_count,
        savings=[
            saving(bundle, row) for row in all_rows if row.family == "kv_bytes" and row.batch == 1
        ],
        planned=planned_saving(bundle),
        planned_times=planned_times(bundle),
        times=time_rows(bundle),
        adding_up=adding_up(bundle.costs) if bundle.costs else "",
        predictions=damage_predictions(bundle),
        others=[row for row in all_rows if row.known.part == "other"],
        looks=list(looks(bundle.plan).values()),
        cells=layer_map(bundle.plan),
        columns=map_columns(bundle.plan.layers),
        items=item_rows(bundle.plan),
        figures=profile_figures(bundle.profile, bundle.plan),
        drift=drift_figures(bundle.drift),
        **healing.regularization(bundle.regularization),
        **healing.fine_tuning(bundle.finetune),
        steps=steps(bundle),
        digests=digests(bundle),
    )
