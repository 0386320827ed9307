"""Print the result of a run: of convert, requalify, compare or survey."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from layerwright.flows.command_line.options import new_table, number
from layerwright.flows.session.runs import RunResult
from layerwright.tasks.contracts.comparison import SideBySideRun
from layerwright.tasks.contracts.requalification import Requalification
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.contracts.survey import SurveyResult, SurveyRow, SurveyStability
from layerwright.tasks.report.returns import return_sentence


def show_run(console: Console, result: RunResult) -> None:
    """The result of a run of any flow."""
    shows: dict[type, Callable[[Console, Any], None]] = {
        RunSummary: _show_summary,
        Requalification: _show_requalification,
        SideBySideRun: _show_comparison,
        SurveyResult: _show_survey,
    }
    shows[type(result)](console, result)


def _show_summary(console: Console, run: RunSummary) -> None:
    """A convert run: figures of every arm, the decision, and where the report is."""
    _show_arms(console, f"Run {run.run_id}", run.metrics)
    plan = ", ".join(f"{count} {name}" for name, count in Counter(run.plan.values()).items())
    console.print(f"plan        {plan} of {len(run.plan)} layers")
    spent = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in run.seconds.items())
    console.print(f"time        {spent}")
    if run.cache_hits:
        console.print(f"cached      {', '.join(run.cache_hits)}")
    if run.cost:
        console.print(f"cost        {return_sentence(run.cost)}", soft_wrap=True)
    console.print(f"decision    [bold]{run.decision}[/bold]")
    for check in run.failed_checks:
        console.print(f"  failed    {check}")
    if run.registered:
        verified = " (found, verified)" if run.registered.found else ""
        kind = run.registered.model_type
        console.print(
            f"registered  {run.registered.name} version {run.registered.version} "
            f"as {run.registered.alias}{f', a {kind} model' if kind else ''}{verified}"
        )
    console.print(f"checkpoint  {run.checkpoint.uri}", soft_wrap=True)
    console.print(f"report      {run.report}", soft_wrap=True)


def _show_requalification(console: Console, run: Requalification) -> None:
    """A version measured again: figures of every arm, the decision, and the alarms."""
    _show_arms(console, f"{run.model}, version {run.version}", run.metrics)
    console.print(f"decision    [bold]{run.decision}[/bold]")
    for check in run.failed_checks:
        console.print(f"  failed    {check}", markup=False)
    for alarm in run.alarms:
        ratio = f"ratio to the {alarm.reference} {number(alarm.ratio)}, "
        told = (ratio if alarm.ratio is not None else "") + alarm.reason
        console.print(f"  alarm     {alarm.metric}: {told}", markup=False)
    console.print(f"trend       {len(run.trend)} requalifications, this one included")
    console.print(f"report      {run.report}", soft_wrap=True)


def _show_comparison(console: Console, run: SideBySideRun) -> None:
    """Two checkpoints: every figure with the interval of its difference, and what changed."""
    columns = ("metric", "A", "B", "B - A", "95 % interval", "p", "items", "lost/won", "better")
    table = new_table(f"A {run.a}, B {run.b}", *columns)
    for row in run.figures:
        bounds = "-" if row.low is None else f"{number(row.low)} to {number(row.high)}"
        changes = "-" if row.lost is None else f"{row.lost}/{row.won}"
        figures = (number(value) for value in (row.a, row.b, row.difference))
        items = str(row.items or "-")
        table.add_row(row.metric, *figures, bounds, number(row.p_value), items, changes, row.better)
    console.print(table)
    if run.regressions:
        table = new_table("Where B is worst", "metric", "item", "A", "B")
        for item in run.regressions:
            asked = "\n".join(escape(part) for part in (item.item, item.prompt) if part)
            arms = ((item.a, item.text_a), (item.b, item.text_b))
            cells = (f"{number(v)}\n{escape(text)}" if text else number(v) for v, text in arms)
            table.add_row(item.metric, asked, *cells)
        console.print(table)
    console.print(f"changed     {len(run.changed)} items are right in one and wrong in the other")


def _show_arms(
    console: Console, title: str, metrics: Mapping[str, Mapping[str, float | None]]
) -> None:
    """One metric a row, the arms side by side."""
    table = new_table(title, "metric", *metrics)
    for name in dict.fromkeys(name for figures in metrics.values() for name in figures):
        table.add_row(name, *(number(figures.get(name)) for figures in metrics.values()))
    console.print(table)


def _show_survey(console: Console, survey: SurveyResult) -> None:
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
