"""The Markdown tables: every row there, and no cell that breaks its table."""

import re

from facts import missing
from report.example_bundle import bundle, measurement

from layerwright.tasks.report.summary import gate_markdown, metrics_markdown, plan_markdown


def cells(markdown: str) -> list[list[str]]:
    """The rows of the table, split at pipes that are not escaped."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_plan_markdown() -> None:
    made = bundle()
    text = plan_markdown(made.plan, made.profile)
    table = cells(text)
    facts = ("18 of 30", "streaming (sinks 4, window 252)", "12", "151 MiB", "360 MiB")
    assert not missing(text.partition("\n|")[0], *facts, "\N{MINUS SIGN}58.1 %")
    assert len(table) == 2 + 30
    assert {len(row) for row in table} == {6}
    assert table[2][:3] == ["0", "streaming (sinks 4, window 252)", "+0.0064"]
    assert table[7][:2] == ["5", "keep"]


def test_metrics_markdown() -> None:
    made = bundle(control=True)
    table = cells(metrics_markdown(made.evaluation))
    assert table[0] == ["Metric", "Base", "Candidate", "Control", "Change"]
    by_name = {row[0]: row for row in table[2:]}
    assert set(by_name) == {m.metric for m in made.evaluation.measurements}
    assert by_name["recall.passkey.600"][1] == "0.917 (0.837 to 0.997)"
    assert by_name["kv_bytes.8192"][1:] == ["360 MiB", "151 MiB", "", "\N{MINUS SIGN}58.1 %"]


def test_gate_markdown() -> None:
    made = bundle(accepted=False)
    text = gate_markdown(made.gate)
    assert text.startswith("**Rejected**")
    assert not missing(text.partition("\n")[0], "23 Dec 2026, 08:21 UTC")
    assert [row[0] for row in cells(text)[2:]] == [
        "Passed", "Failed", "Failed", "Passed", "Passed", "Passed", "Warning",
    ]  # fmt: skip


def test_a_cell_cannot_break_its_table() -> None:
    made = bundle()
    hostile = measurement("a|b\nc<i>\\|", "base", None, "x")
    report = made.evaluation.model_copy(update={"measurements": (hostile,)})
    table = cells(metrics_markdown(report))
    assert len(table) == 3
    assert len(table[2]) == len(table[0])
    assert table[2][0] == "a\\|b c&lt;i>\\\\\\|"
