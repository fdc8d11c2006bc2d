"""Alignment of text and numbers in columns: the one place that lays out tables for the terminal and for logs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

NO_VALUE = "-"
"""A cell without a value."""

_GAP = "  "


def align(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> list[str]:
    """Return rows of cells as lines of text with aligned columns, without trailing spaces.

    Args:
        rows: Cells, a heading like any other row. Rows may be of different lengths; missing cells are empty.
        left: Indices of the columns that are aligned to the left. The others, of numbers, are aligned to the right.
    """
    columns = max((len(row) for row in rows), default=0)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    lines = []
    for row in rows:
        cells = [f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def cell(value: float | None, form: str = "{:.2f}") -> str:
    """Return a number as a cell, in a format of `str.format`, or `NO_VALUE` for None."""
    return NO_VALUE if value is None else form.format(value)


def align_values(values: Mapping[str, Any]) -> list[str]:
    """Return names and their values as aligned lines; floats with three decimals, other values as they are."""
    return align(
        [[name, f"{value:,.3f}" if isinstance(value, float) else str(value)] for name, value in values.items()]
    )
