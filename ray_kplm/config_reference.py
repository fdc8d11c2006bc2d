"""Generate the configuration reference from `config.py`: python -m ray_kplm.config_reference > docs/configuration.md."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from ray_kplm.config import Config
from ray_kplm.config_schema import field_docs
from ray_kplm.ranges import or_auto, range_of

_HEAD = """# Configuration

<!-- Written by `python -m ray_kplm.config_reference > docs/configuration.md` from ray_kplm/config.py. Do not edit. -->

Every key with its type, its range, its default and its meaning. `T` is the [thesis](method.md), chapter 6 unless said
otherwise; `R` is the authors' released code. A configuration is a YAML file of these sections; every key may also be given on
the command line as `section.key=value`, for example `kplm train CONFIG stage1.rounds=10 'compute.workers={min: 1, max: 4}'`.
Keys that are not given have their defaults. Unknown keys, wrong types and values out of range are errors that name the key.
"""
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
_METHOD = re.compile(r"docs/method\.md (\d+)")


def reference() -> str:
    """Return the reference as Markdown: a section for each section of the configuration, a line for each key."""
    config = Config()
    lines = [_HEAD, "## The run", "", *_key_lines(config, "")]
    for field in dataclasses.fields(config):
        section = getattr(config, field.name)
        if dataclasses.is_dataclass(section):
            text = _linked(inspect.getdoc(type(section)) or "")
            lines += ["", f"## `{field.name}`", "", text, "", *_key_lines(section, f"{field.name}.")]
    return "\n".join(lines) + "\n"


def _key_lines(section: Any, prefix: str) -> Iterator[str]:
    """Yield a line for each key of a section that is not a section itself."""
    docs = field_docs(type(section))
    hints = typing.get_type_hints(type(section), include_extras=True)
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if not dataclasses.is_dataclass(value):
            default = json.dumps(value, ensure_ascii=False)
            text = _linked(docs[field.name])
            words = _type_words(hints[field.name])
            yield f"* **`{prefix}{field.name}`**: {words}, default `{default}`. {text}"


def _type_words(hint: Any) -> str:
    """Return the words for a type as it is written in YAML, with the range of its numbers."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    allowed = range_of(hint)
    numbers = f", {'each ' if origin is tuple else ''}{allowed}" if allowed else ""
    if origin is typing.Annotated:
        return f"{_PLAIN[parts[0]]}{numbers}{', or `auto`' if or_auto(hint) else ''}"
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in parts)
    if origin is tuple:
        return f"{'list of numbers' if parts[-1] is Ellipsis else 'two numbers `[low, high]`'}{numbers}"
    if origin is types.UnionType or origin is typing.Union:
        return f"{_type_words(parts[0])}, or `{{min: ..., max: ...}}`"
    return _PLAIN[hint]


def _linked(text: str) -> str:
    """Return a text on one line, with links for its citations of the method."""
    return _METHOD.sub(r"[method \1](method.md#method-\1)", " ".join(text.split()))


if __name__ == "__main__":
    sys.stdout.write(reference())
