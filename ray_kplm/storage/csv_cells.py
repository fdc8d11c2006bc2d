"""Cells of a CSV file: one cell whatever the text, and never a formula in a spreadsheet."""

from __future__ import annotations

import re

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Beginnings that spreadsheets take for a formula or trim to one, or that such a text has after `to_cell`."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_QUOTED = re.compile(r'[",\r\n]')


def guard(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would take it for a formula; `from_cell` takes it away.

    It would if it begins with `=`, `+`, `-`, `@`, a tab or a line break, and is no number. Spreadsheets do not show the
    apostrophe.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def to_cell(text: str) -> str:
    """Return a text as a cell: guarded, and quoted where it has to be."""
    text = guard(text)
    return '"{}"'.format(text.replace('"', '""')) if _QUOTED.search(text) else text


def from_cell(value: str) -> str:
    """Return the text of a cell that `to_cell` wrote, given as a CSV reader returns it: without quotes."""
    return value[1:] if value.startswith("'") and _FORMULA.match(value) else value
