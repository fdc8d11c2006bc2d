"""The JSON schema of the configuration, for editors that check and complete YAML files as they are written.

It is generated from the dataclasses in `ray_kplm.config`, with their types, choices, defaults and docstrings, and accepts what
`ray_kplm.config_parsing` accepts, with the ranges of numbers. Rules between values, and numbers that YAML reads as text, are
checked only when a configuration is loaded.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any, Literal

from ray_kplm.config import Config
from ray_kplm.ranges import Range

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest dialect that YAML editors support well."""
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_PLAIN: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "string"], "pattern": _NUMBER},  # YAML 1.1 reads 1e-4 as a string
    str: {"type": ["string", "number"]},  # a name may look like a number
    type(None): {"type": "null"},
}


def config_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 7) of a configuration file."""
    return {"$schema": DIALECT, "title": "ray_kplm configuration", **_section(Config)}


def field_docs(kind: type) -> dict[str, str]:
    """Return the docstring of each field of a dataclass by the field's name, its lines joined to one."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
    return docs


def _section(kind: type) -> dict[str, Any]:
    """Return the schema of a dataclass."""
    hints, docs = typing.get_type_hints(kind, include_extras=True), field_docs(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        schema = _type_schema(hints[field.name])
        if field.name in docs:
            schema["description"] = docs[field.name]
        if not dataclasses.is_dataclass(hints[field.name]):
            schema["default"] = _default(field)
        properties[field.name] = schema
    text = " ".join((kind.__doc__ or "").split())
    return {"type": "object", "description": text, "properties": properties, "additionalProperties": False}


def _type_schema(kind: Any) -> dict[str, Any]:
    """Return the schema of the values that `config_parsing.read` accepts for a type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _annotated_schema(parts[0], parts[1:])
    if origin is Literal:
        yes_or_no = [value for value, word in ((True, "yes"), (False, "no")) if word in parts]  # YAML 1.1's yes and no
        return {"enum": [*parts, *yes_or_no]}
    if origin is tuple and parts[-1] is Ellipsis:
        return {"type": "array", "items": _type_schema(parts[0])}
    if origin is tuple:
        return {
            "type": "array",
            "items": [_type_schema(part) for part in parts],
            "additionalItems": False,
            "minItems": len(parts),
        }
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type_schema(part) for part in parts]}
    return dict(_PLAIN[kind]) if kind in _PLAIN else _section(kind)


def _annotated_schema(kind: Any, marks: tuple[Any, ...]) -> dict[str, Any]:
    """Return the schema of a number with a range, or of one that may also be a word, which stands as 0 in a stored file."""
    schema = _type_schema(kind)
    allowed = next((mark for mark in marks if isinstance(mark, Range)), None)
    if allowed:
        schema["exclusiveMinimum" if allowed.above else "minimum"] = allowed.low
        schema["exclusiveMaximum" if allowed.below else "maximum"] = allowed.high
    words = [mark for mark in marks if isinstance(mark, str)]
    zero = [0] if words or (allowed and allowed.or_zero) else []
    return {"anyOf": [schema, {"enum": [*words, *zero]}]} if zero else schema


def _default(field: dataclasses.Field[Any]) -> Any:
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return list(default) if isinstance(default, tuple) else default
