"""Generate the configuration reference from `config.py`: python -m ray_kplm.config_reference > docs/configuration.md."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from ray_kplm.config import Config
from ray_kplm.config_schema import field_docs

_HEAD = """# Configuration

<!-- Written by `python -m ray_kplm.config_reference > docs/configuration.md` from ray_kplm/config.py. Do not edit. -->

Every key with its type, its default and its meaning. `T` is the [thesis](method.md), chapter 6 unless said otherwise; `R` is
the authors' released code. A configuration is a YAML file of these sections; every key may also be given on the command line as
`section.key=value`, for example `kplm train CONFIG stage1.rounds=10 'compute.workers={min: 1, max: 4}'`. Keys that are not
given have their defaults. Unknown keys, wrong types and values out of range are errors that name the key.
"""
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
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if not dataclasses.is_dataclass(value):
            default = json.dumps(value, ensure_ascii=False)
            text = _linked(docs[field.name])
            yield f"* **`{prefix}{field.name}`**: {_type_words(str(field.type))}, default `{default}`. {text}"


def _type_words(annotation: str) -> str:
    """Return the words for a type as it is written in YAML."""
    choices = re.fullmatch(r"Literal\[(.*)\]", annotation)
    if choices:
        return "one of " + ", ".join(f"`{choice[1:-1]}`" for choice in choices[1].split(", "))
    words = {
        "str": "text",
        "int": "whole number",
        "AutoInt": "whole number or `auto`",
        "float": "number",
        "bool": "`true` or `false`",
        "tuple[float, float]": "two numbers `[low, high]`",
        "tuple[float, ...]": "list of numbers",
        "int | WorkerRange": "whole number or `{min: ..., max: ...}`",
    }
    return words[annotation]


def _linked(text: str) -> str:
    """Return a text on one line, with links for its citations of the method."""
    return _METHOD.sub(r"[method \1](method.md#method-\1)", " ".join(text.split()))


if __name__ == "__main__":
    sys.stdout.write(reference())
