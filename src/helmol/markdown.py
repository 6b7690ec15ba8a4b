"""Tables of Markdown pages."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table: text on the left in its first column, to the right in the others.

    Floats are shown with four significant digits; a bar within a cell (``|ΔF|``) does not end it.
    """
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join([_row(head), f"|{'|'.join(rule)}|", *map(_row, rows)])


def number(value: float | None) -> str:
    """Return four significant digits, or a dash for what is not there."""
    return "-" if value is None else f"{value:.4g}"


def _row(cells: Sequence[object]) -> str:
    texts = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
