"""Plain trees (YAML, `key=value`) into dataclasses, with errors that name the path, the value and the way out."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from ray_kplm import config_names
from ray_kplm.errors import ConfigError


def put(tree: dict[str, Any], override: str) -> None:
    """Put `key.sub=value` into a plain tree; the value is read as YAML."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r}: overrides are written key=value, for example stage1.learning_rate=1e-4")
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: {section} is a value, not a section")
    try:
        node[last] = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        node[last] = text


def build(kind: type, tree: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass `kind` of a plain tree; missing keys take their defaults."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')} = {tree!r}: is a section with the keys {', '.join(_names(kind))}")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if key not in hints:
            raise _unknown(kind, key, prefix)
        hint = hints[key]
        values[key] = (
            build(hint, value, f"{path}.")
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
            else read(hint, value, path)
        )
    return kind(**values)


def kind_of(kind: type, path: str) -> Any:
    """The type of the field at a dotted path, `stage1.batch_size` -> int. Raises ConfigError for a section or no field."""
    *sections, last = path.split(".")
    below = kind
    for depth, section in enumerate(sections):
        below = _hint(below, section, ".".join(sections[:depth]))
        if not dataclasses.is_dataclass(below):
            raise ConfigError(f"{path}: {section} is a value, not a section")
    found = _hint(below, last, ".".join(sections))
    if dataclasses.is_dataclass(found):
        raise ConfigError(f"{path}: is a section with the keys {', '.join(_names(found))}; name one: {path}.KEY")
    return found


def _hint(kind: type, key: str, prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    if key not in hints:
        raise _unknown(kind, key, f"{prefix}." if prefix else "")
    return hints[key]


def _unknown(kind: type, key: str, prefix: str) -> ConfigError:
    if f"{prefix}{key}" in config_names.KEYS:
        return ConfigError(f"{prefix}{key}: is called {config_names.KEYS[f'{prefix}{key}']} now")
    near = difflib.get_close_matches(str(key), _names(kind), n=1) or _below(kind, str(key))
    hint = (
        f"did you mean {' or '.join(prefix + name for name in near)}?"
        if near
        else f"known keys: {', '.join(_names(kind))}"
    )
    return ConfigError(f"{prefix}{key}: unknown key; {hint}")


def _below(kind: type, key: str) -> list[str]:
    """The keys of the sections of `kind` that are closest to `key`, with their sections: its own was left out."""
    sections = {name: hint for name, hint in typing.get_type_hints(kind).items() if dataclasses.is_dataclass(hint)}
    near = difflib.get_close_matches(key, {name for hint in sections.values() for name in _names(hint)}, n=1)
    return [f"{section}.{name}" for section, hint in sections.items() for name in near if name in _names(hint)]


def _names(kind: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def read(kind: Any, value: Any, path: str) -> Any:
    """`value` as the field's type, or a ConfigError."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        value = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value  # YAML's yes and no
        if value in config_names.VALUES.get(path, {}):
            raise ConfigError(f"{path} = {value!r}: is called {config_names.VALUES[path][value]!r} now")
        if value not in choices:
            raise ConfigError(f"{path} = {value!r}: must be one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        return _tuple(kind, value, path)
    if origin in (typing.Union, types.UnionType):
        return _choice(typing.get_args(kind), value, path)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a string
        except ValueError:
            pass
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{path} = {value!r}: must be of type {kind.__name__}")
    return value


def _choice(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    """None, a section, or a value of the first kind."""
    if value is None and type(None) in kinds:
        return None
    section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    if section is not None and isinstance(value, Mapping):
        return build(typing.cast(type, section), value, f"{path}.")
    return read(kinds[0], value, path)


def _tuple(kind: Any, value: Any, path: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path} = {value!r}: must be a list of numbers")
    if kinds[-1] is Ellipsis:
        return tuple(read(kinds[0], v, path) for v in value)
    if len(value) != len(kinds):
        raise ConfigError(f"{path} = {value!r}: must have {len(kinds)} entries")
    return tuple(read(k, v, path) for k, v in zip(kinds, value, strict=True))
