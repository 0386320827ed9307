"""The page of a convert run: one self-contained HTML file."""

from layerwright.tasks.report import healing, savings, verdict
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.dots import dot_panels
from layerwright.tasks.report.drift import drift_figures
from layerwright.tasks.report.gate import gate_section
from layerwright.tasks.report.layers import item_layers, layer_map, map_columns
from layerwright.tasks.report.lineage import digests, parameters_text, steps
from layerwright.tasks.report.lines import length_panel
from layerwright.tasks.report.looks import looks
from layerwright.tasks.report.measurements import curves, rows
from layerwright.tasks.report.profile_figures import profile_figures
from layerwright.tasks.report.recall import recall_figures
from layerwright.tasks.report.returns import crossover_sentences, return_sentence, token_count
from layerwright.tasks.report.template import template


def render_page(bundle: ReportBundle) -> str:
    """The whole page. It loads nothing from the network; the same bundle gives the same bytes."""
    all_rows = rows(bundle.evaluation)
    quality = [row for row in all_rows if row.known.part == "quality"]
    by_length = [row for row in all_rows if row.known.part == "by_length"]
    return template("page.html.j2").render(
        bundle=bundle,
        **gate_section(bundle.evaluation, bundle.gate),
        sentences=[
            ("What was done", verdict.done(bundle)),
            ("What it saves", verdict.saves(bundle)),
            ("What it costs", verdict.costs(bundle)),
            ("Outcome", verdict.outcome(bundle)),
        ],
        tiles=savings.tiles(bundle),
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
            savings.saving(bundle, row)
            for row in all_rows
            if row.family == "kv_bytes" and row.batch == 1
        ],
        planned=savings.planned_saving(bundle),
        planned_times=savings.planned_times(bundle),
        times=savings.time_rows(bundle),
        adding_up=savings.adding_up(bundle.costs) if bundle.costs else "",
        predictions=savings.damage_predictions(bundle),
        others=[row for row in all_rows if row.known.part == "other"],
        looks=looks(bundle.plan),
        cells=layer_map(bundle.plan),
        columns=map_columns(bundle.plan.layers),
        item_layers=item_layers,
        figures=profile_figures(bundle.profile, bundle.plan),
        drift=drift_figures(bundle.drift),
        **healing.regularization(bundle.regularization),
        **healing.fine_tuning(bundle.finetune),
        steps=steps(bundle),
        digests=digests(bundle),
    )
