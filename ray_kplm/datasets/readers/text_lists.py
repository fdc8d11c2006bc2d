"""Text files of one item a line, as authors distribute them and editors, spreadsheets and shells leave them."""

from __future__ import annotations

import codecs
import re

Rows = list[list[str]]

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile(r"\r\n|\n|\r")


def decode_text(content: bytes) -> str:
    """Return the content of a text file in UTF-8, UTF-16 or UTF-32, as its start says; broken characters become U+FFFD."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    start = content[:256]
    if b"\0" in start[1::2] and b"\0" not in start[::2]:
        return content.decode("utf-16-le", errors="replace")
    if b"\0" in start[::2] and b"\0" not in start[1::2]:
        return content.decode("utf-16-be", errors="replace")
    return content.decode("utf-8", errors="replace")


def read_rows(content: bytes, headings: int = 0) -> Rows:
    """Return the words of each line, without empty lines.

    Words are separated by white space, or by commas or semicolons, around which white space counts for nothing.

    Args:
        content: Of the file.
        headings: Greatest number of lines at the start that are no items, such as a count and the names of columns. They are
            left out there, and wherever they are repeated.
    """
    rows = [words for line in _LINE_END.split(decode_text(content)) if any(words := _words(line))]
    known: Rows = []
    for words in rows[:headings]:
        if not _is_heading(words):
            break
        known.append(words)
    return [words for words in rows if words not in known] if known else rows


def _words(line: str) -> list[str]:
    separated = re.split("[,;]", line) if re.search("[,;]", line) else line.split()
    return [word.strip().strip("\"'") for word in separated]


def _is_heading(words: list[str]) -> bool:
    """Return whether a line is a single number or has no number after its first word: items have some."""
    if len(words) == 1:
        return words[0].isdigit()
    return not any(map(_is_number, words[1:]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
