"""Plan, metrics and gate as Markdown tables, for Prefect's artifacts and the model card."""

from collections.abc import Iterable, Sequence

from layerwright.tasks.contracts.evaluation import ARMS, Arm, EvalReport
from layerwright.tasks.contracts.gate import Check, GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.report.bundle import total_of
from layerwright.tasks.report.formats import data_size, interval, moment, number, percent, quantity
from layerwright.tasks.report.gate import judged, status, waiver_rows
from layerwright.tasks.report.layers import item_layers, item_name
from layerwright.tasks.report.measurements import Row, rows
from layerwright.tasks.report.verdict import plan_sentence


def plan_markdown(plan: ConversionPlan, profile: ModelProfile) -> str:
    """The strategy of each layer, with predicted damage, KV bytes and the reason."""
    full, planned = profile.base_kv_bytes(plan.context_tokens), total_of(plan, "predicted_kv_bytes")
    predicted = (
        f"Predicted KV cache at {plan.context_tokens:,} tokens: {data_size(planned)} instead of "
        f"{data_size(full)} ({percent(planned / full - 1, signed=True)})."
        if full and planned is not None
        else "The plan predicts no KV bytes for some layers."
    )
    sentence = plan_sentence(plan)
    table = markdown_table(
        ("Layer", "Strategy", "Language, nats", "Recall, nats", "KV bytes", "Reason"),
        (
            (
                *(item_layers(item), item_name(item)),
                number(item.predicted_language_nats, signed=True),
                number(item.predicted_recall_nats, signed=True),
                data_size(item.predicted_kv_bytes),
                item.reason,
            )
            for item in plan.items
        ),
    )
    return f"{sentence[:1].upper()}{sentence[1:]}. {predicted}\n\n{table}"


def metrics_markdown(report: EvalReport) -> str:
    """All measurements, one metric per row and one arm per column, with 95 % intervals."""
    all_rows = rows(report)
    arms = [arm for arm in ARMS if any(arm in row.arms for row in all_rows)]

    def cell(row: Row, arm: Arm) -> str:
        m = row.arms.get(arm)
        if m is None:
            return ""
        text = quantity(m.value, m.unit)
        if m.low is None or m.high is None:
            return text
        return f"{text} ({interval(m.low, m.high, m.unit)})"

    def change(row: Row) -> str:
        return "" if row.change is None else percent(row.change, signed=True)

    body = ((row.metric, *(cell(row, arm) for arm in arms), change(row)) for row in all_rows)
    return markdown_table(("Metric", *(arm.capitalize() for arm in arms), "Change"), body)


def gate_markdown(decision: GateDecision) -> str:
    """The decision and all its checks."""
    verdict = "Accepted" if decision.accepted else "Rejected"
    table = markdown_table(
        (*("Result", "Metric", "Rule", "Value", "Bound", "Limit", "Margin", "Items"), "Reason"),
        (
            (
                *(status(c).word, c.metric, c.rule, number(c.value)),
                *("" if c.bound is None else number(c.bound), number(c.limit)),
                *("" if c.margin is None else number(c.margin, signed=True), _items(c), c.reason),
            )
            for c in decision.checks
        ),
    )
    waivers = "".join(
        f"- waiver for `{row.metric}` by {row.author} until {row.expires} ({row.state}): "
        f"{row.reason}\n"
        for row in waiver_rows(decision)
    )
    valid = f"the decision is valid until {moment(decision.expires_at)}"
    return f"**{verdict}**; {valid}. {judged(decision)}\n\n{table}\n{waivers}"


def _items(check: Check) -> str:
    if not check.items:
        return ""
    power = "" if check.detectable is None else f" (detects {number(check.detectable)})"
    return f"{check.items:,}{power}"


def markdown_table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table, with its cells escaped."""

    def line(cells: Sequence[str]) -> str:
        # a pipe would end the cell; a line break or an HTML tag would end the table
        safe = (c.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for c in cells)
        return "| " + " | ".join(" ".join(c.split()) for c in safe) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *map(line, body)]) + "\n"
