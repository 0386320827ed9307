"""Format tables and numbers in the same way for all output."""

from rich.table import Table


def new_table(title: str, *columns: str) -> Table:
    """An empty table."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="left", overflow="fold")
    return table


def number(value: float | None) -> str:
    """Four significant digits; ``-`` for a figure that is missing."""
    if value is None:
        return "-"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
