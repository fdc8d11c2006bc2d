"""Build dataclasses from plain trees (YAML, `key=value`), with errors that name the path, the value and the way out."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml

from ray_kplm import ready_configs
from ray_kplm.config_names import REMOVED_KEYS, RENAMED_KEYS, RENAMED_VALUES
from ray_kplm.errors import ConfigError
from ray_kplm.storage.file_content import check_sealed_text, parsing


def put(tree: dict[str, Any], override: str) -> None:
    """Put `section.key=value` into a plain tree; the value is read as YAML.

    Raises:
        ConfigError: the override has no `=`, or its section is a value.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r}: overrides are written key=value, for example stage1.learning_rate=1e-4")
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: {section} is a value, not a section")
    node[last] = read_value(text)


class _Spelled(int):
    """A whole number that remembers how it was written: a folder may be called 007, which YAML reads as 7."""

    spelling: str


class _Loader(yaml.SafeLoader):
    """Reads YAML; what looks like a date is text, and whole numbers are _Spelled."""

    def construct_spelled(self, node: yaml.ScalarNode) -> _Spelled | str:
        """Return a whole number, or the text of one that is too long to be one."""
        try:
            number = _Spelled(self.construct_yaml_int(node))
        except ValueError:
            return str(node.value)
        number.spelling = str(node.value)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_spelled)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_value(text: str) -> Any:
    """Return the value of an override, which is written as in YAML; text that is no YAML stays text."""
    if not text:
        return ""
    if text[:1] in ("[", "{", '"', "'"):
        try:
            return yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError):
            return text
    loader = _Loader("")  # a scalar may be a path, with any of the characters that begin something in YAML
    tag = loader.resolve(yaml.ScalarNode, text.strip(), (True, False))
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text.strip()))
    except (yaml.YAMLError, ValueError):  # of `=` and `<<`, and of numbers as 0b
        return text


def build(kind: type, tree: Mapping[str, Any], prefix: str = "") -> Any:
    """Build a dataclass from a plain tree; missing keys take their defaults.

    Args:
        kind: the dataclass.
        tree: its values; those of its sections are trees.
        prefix: path of the dataclass in the configuration with a final dot, for errors.

    Raises:
        ConfigError: a key is unknown, or a value has a wrong type or breaks a rule of the dataclass.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')} = {tree!r}: is a section with the keys {', '.join(_keys(kind))}")
    hints = typing.get_type_hints(kind, include_extras=True)
    values = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if key not in hints:
            raise _unknown_key(kind, key, prefix)
        hint = hints[key]
        values[key] = (
            build(hint, value, f"{path}.")
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
            else read(hint, value, path)
        )
    return kind(**values)


def type_at(kind: type, path: str) -> Any:
    """Return the type of the field at a dotted path of a dataclass, for example int for `stage1.batch_size`.

    Raises:
        ConfigError: there is no such field, or it is a section.
    """
    *sections, last = path.split(".")
    parent = kind
    for depth, section in enumerate(sections):
        parent = _hint(parent, section, ".".join(sections[:depth]))
        if not dataclasses.is_dataclass(parent):
            raise ConfigError(f"{path}: {section} is a value, not a section")
    hint = _hint(parent, last, ".".join(sections))
    if dataclasses.is_dataclass(hint):
        raise ConfigError(f"{path}: is a section with the keys {', '.join(_keys(hint))}; name one: {path}.KEY")
    return hint


def hint_at(kind: type, path: str) -> Any:
    """Return the type of the field at a dotted path of a dataclass with its range. The path is one of `type_at`."""
    *sections, last = path.split(".")
    for section in sections:
        kind = typing.get_type_hints(kind)[section]
    return typing.get_type_hints(kind, include_extras=True)[last]


def _hint(kind: type, key: str, section: str) -> Any:
    hints = typing.get_type_hints(kind)
    if key not in hints:
        raise _unknown_key(kind, key, f"{section}." if section else "")
    return hints[key]


def _unknown_key(kind: type, key: str, prefix: str) -> ConfigError:
    """Return the error for a key that `kind` does not have: its new name, or similar keys, or all keys."""
    path = f"{prefix}{key}"
    if path in RENAMED_KEYS:
        return ConfigError(f"{path}: is called {RENAMED_KEYS[path]} now")
    if path in REMOVED_KEYS:
        return ConfigError(f"{path}: is part of {REMOVED_KEYS[path]} now")
    similar = difflib.get_close_matches(str(key), _keys(kind), n=1) or _keys_of_sections(kind, str(key))
    hint = (
        f"did you mean {' or '.join(prefix + name for name in similar)}?"
        if similar
        else f"known keys: {', '.join(_keys(kind))}"
    )
    return ConfigError(f"{path}: unknown key; {hint}")


def _keys_of_sections(kind: type, key: str) -> list[str]:
    """Return the paths below `kind` whose last key is most similar to `key`, which was given without its section."""
    sections = {name: hint for name, hint in typing.get_type_hints(kind).items() if dataclasses.is_dataclass(hint)}
    similar = difflib.get_close_matches(key, {name for hint in sections.values() for name in _keys(hint)}, n=1)
    return [f"{section}.{name}" for section, hint in sections.items() for name in similar if name in _keys(hint)]


def _keys(kind: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def read(kind: Any, value: Any, path: str) -> Any:
    """Return a value from YAML as the type of a field.

    Args:
        kind: the type: a Literal, a tuple, a union, one of bool, int, float and str, or one of these with a range or a word.
        value: as YAML gives it.
        path: dotted path of the field, for errors.

    Raises:
        ConfigError: the value is not of this type.
    """
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:  # a range, which is checked later, or the word of config.AutoInt
        plain, *marks = typing.get_args(kind)
        return 0 if isinstance(value, str) and value in marks else read(plain, value, path)
    if origin is Literal:
        return _read_choice(typing.get_args(kind), value, path)
    if origin is tuple:
        return _read_tuple(kind, value, path)
    if origin in (typing.Union, types.UnionType):
        return _read_union(typing.get_args(kind), value, path)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except OverflowError:
            return math.inf  # which is in no range
        except ValueError:
            pass
    if kind is int and isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return getattr(value, "spelling", str(value))
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{path} = {value!r}: must be of type {kind.__name__}")
    return value


def _read_choice(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    value = (
        {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    )  # YAML 1.1 reads yes and no as booleans
    new = RENAMED_VALUES.get(path, {}).get(value) if isinstance(value, str) else None
    if new is not None:
        raise ConfigError(f"{path} = {value!r}: is called {new!r} now")
    if value not in choices:
        raise ConfigError(f"{path} = {value!r}: must be one of {', '.join(map(str, choices))}")
    return value


def _read_union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    """Read None, a section, or a value of the first type."""
    if value is None and type(None) in kinds:
        return None
    section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    if section is not None and isinstance(value, Mapping):
        return build(typing.cast(type, section), value, f"{path}.")
    return read(kinds[0], value, path)


def _read_tuple(kind: Any, value: Any, path: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path} = {value!r}: must be a list of numbers")
    if kinds[-1] is Ellipsis:
        return tuple(read(kinds[0], v, path) for v in value)
    if len(value) != len(kinds):
        raise ConfigError(f"{path} = {value!r}: must have {len(kinds)} entries")
    return tuple(read(k, v, path) for k, v in zip(kinds, value, strict=True))


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file, or the ready configuration of this name, as a plain tree. Raises ConfigError."""
    try:
        with open(ready_configs.find(path), "rb") as stream:
            content = stream.read()
        with parsing(os.fspath(path), "give the configuration that the run was made by, and it is written again"):
            check_sealed_text(content)
        tree = yaml.load(content.decode("utf-8-sig"), _Loader) or {}
    except (FileNotFoundError, NotADirectoryError):
        near = ready_configs.near(path)
        hint = f"did you mean {', '.join(near)}?" if near else "`kplm configs` lists the ready ones"
        raise ConfigError(f"{path}: no such configuration file, nor a ready one of this name; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(
            f"{path}: not readable as a YAML file ({why}); give one, or a name that `kplm configs` lists"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}; it must be a mapping of keys to values")
    return tree


def to_plain(value: Any) -> Any:
    """Return a tree with lists for tuples, as YAML holds it."""
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the dotted path and the value of each leaf of a plain tree."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
