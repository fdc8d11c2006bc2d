"""The configuration reference, written from `config.py`: python -m ray_kplm.config_reference > docs/configuration.md"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from ray_kplm import config

_HEAD = """# Configuration

<!-- Written by `python -m ray_kplm.config_reference > docs/configuration.md` from ray_kplm/config.py. Do not edit. -->

Every key with its type, its default and what it means. `T` is the [thesis](method.md), chapter 6 unless said otherwise; `R` is
the authors' released code. A configuration is a YAML file of these sections; every key may also be given on the command line as
`section.key=value`, for example `kplm train CONFIG stage1.rounds=10 'compute.workers={min: 1, max: 4}'`. What is not given has
its default. Unknown keys, wrong types and values out of range are errors that name the key.
"""
_METHOD = re.compile(r"METHOD (\d+)")


def reference() -> str:
    """Return the reference as Markdown: a section for each part of the configuration, a line for each key."""
    texts = _docstrings(inspect.getsource(config))
    tree = config.Config()
    sections = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    lines = [_HEAD, "## The run", "", *_lines(tree, "", texts)]
    for name, section in sections.items():
        if dataclasses.is_dataclass(section):
            kind = type(section).__name__
            lines += ["", f"## `{name}`", "", _prose(texts[kind, ""]), "", *_lines(section, f"{name}.", texts)]
    return "\n".join(lines) + "\n"


def _lines(section: Any, prefix: str, texts: dict[tuple[str, str], str]) -> Iterator[str]:
    """A line for each key of a section that is no section itself."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if not dataclasses.is_dataclass(value):
            default = json.dumps(value, ensure_ascii=False)
            text = _prose(texts[type(section).__name__, field.name])
            yield f"* **`{prefix}{field.name}`**: {_kind(str(field.type))}, default `{default}`. {text}"


def _kind(annotation: str) -> str:
    """What a value may be, as a user of YAML says it."""
    choices = re.fullmatch(r"Literal\[(.*)\]", annotation)
    if choices:
        return "one of " + ", ".join(f"`{choice[1:-1]}`" for choice in choices[1].split(", "))
    words = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "`true` or `false`",
        "tuple[float, float]": "two numbers `[low, high]`",
        "tuple[float, ...]": "list of numbers",
        "int | WorkerRange": "whole number or `{min: ..., max: ...}`",
    }
    return words[annotation]


def _docstrings(source: str) -> dict[tuple[str, str], str]:
    """Return the docstrings of classes, (class, ""), and of their fields, (class, field): a string below an annotation."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found[node.name, ""] = ast.get_docstring(node) or ""
            for field, below in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found[node.name, ast.unparse(field.target)] = ast.literal_eval(below.value)
    return found


def _prose(text: str) -> str:
    """One line, whose citations of the method are links."""
    return _METHOD.sub(r"[method \1](method.md#method-\1)", " ".join(text.split()))


if __name__ == "__main__":
    sys.stdout.write(reference())
