"""Print a survey: every plan with its figures, and the command that runs it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from layerwright.flows.command_line.presentation.tables import new_table, number
from layerwright.tasks.contracts.survey import SurveyResult, SurveyRow, SurveyStability


def show_survey(console: Console, survey: SurveyResult) -> None:
    """Plans with their figures and intervals, then the prediction of their order, then commands."""
    rows = survey.rows
    _show_plans(console, survey.run_id, rows)
    for name, row in rows.items():
        for cost in row.costs or ():
            console.print(
                f"{escape(name)}, requests of {cost.prompt_tokens:,} + {cost.new_tokens:,} "
                f"tokens, batch {cost.batch}: {cost.request.candidate:.4g} {row.currency} per "
                f"million tokens instead of {cost.request.base:.4g}"
            )
    for prediction in survey.predictions:
        if prediction.spearman is not None:
            console.print(
                f"The order of {prediction.plans} plans by {prediction.metric} was predicted with "
                f"a rank correlation of {prediction.spearman:.2f} (Spearman)."
            )
    if survey.stability:
        _show_stability(console, survey.stability)
    console.print("Each plan is a file that you can edit and run:")
    for name, row in rows.items():
        # a recipe's own text may look like markup
        text = f"  {name}\n    {row.command}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    if survey.missing:
        console.print(f"Before it converts, the recipe needs {', '.join(survey.missing)}.")
    console.print(f"report      {survey.report}", soft_wrap=True)


def _show_plans(console: Console, run_id: str, rows: dict[str, SurveyRow]) -> None:
    every = dict.fromkeys(metric for row in rows.values() for metric in row.metrics)
    # `perplexity` beside `perplexity.text` is the same figure again
    metrics = [m for m in every if not any(other.startswith(f"{m}.") for other in every)]
    timed = any(row.predicted_prefill_seconds is not None for row in rows.values())
    costs = ("KV bytes", *(("prefill", "per token") if timed else ()))
    table = new_table(f"Survey {run_id}", "plan", "converted", *costs, *metrics)
    for name, row in rows.items():
        converted = sum(strategy != "keep" for strategy in row.plan.values())
        shares = [row.predicted_kv_bytes_ratio]
        if timed:
            shares += [row.predicted_prefill_seconds_ratio, row.predicted_decode_seconds_ratio]
        told = ("-" if share is None else f"{share:.1%}" for share in shares)
        figures = (_with_interval(row, metric) for metric in metrics)
        table.add_row(escape(name), f"{converted} of {len(row.plan)}", *told, *figures)
    console.print(table)


def _with_interval(row: SurveyRow, metric: str) -> str:
    """The figure, and its 95 % interval below."""
    figure = number(row.metrics.get(metric))
    if bounds := row.intervals.get(metric):
        return f"{figure}\n{number(bounds[0])} to {number(bounds[1])}"
    return figure


def _show_stability(console: Console, found: SurveyStability) -> None:
    """Plans chosen from two texts: their overlap, and the perplexity ratio of each."""
    pairs = [(on, text) for on in found.held_out for text in found.texts]
    columns = [escape(f"on {on}, from {text}") for on, text in pairs]
    table = new_table("Chosen from two texts", "plan", "same strategy", "Jaccard", *columns)
    for name, plan in found.plans.items():
        figures = []
        for on, text in pairs:
            ratio = plan.damage[on][text]["perplexity_ratio"]
            figures.append(f"{number(ratio.value)}\n{number(ratio.low)} to {number(ratio.high)}")
        same = f"{plan.same_strategy:.0%}"
        table.add_row(escape(name), same, f"{plan.jaccard:.2f}", *figures)
    console.print(table)
