"""The search space of a sweep: dotted paths of the configuration, each with a list of values or a distribution of Ray Tune.

stage1.batch_size=8,16,32                     a list
stage1.learning_rate=loguniform:1e-4:2e-3     numbers from LOW to HIGH
method.clusters=randint:50:200                whole numbers from LOW to HIGH - 1, as `tune.randint(50, 200)`
space.yaml                                    a file of such lines: `stage1.batch_size: [8, 16, 32]`,
                                              `stage1.learning_rate: loguniform:1e-4:2e-3`
"""

from __future__ import annotations

import itertools
import json
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ray_kplm import config_parsing
from ray_kplm.config import Config, from_dict
from ray_kplm.errors import ConfigError
from ray_kplm.ranges import value_faults

Values = dict[str, Any]
"""A point of the space: dotted path -> value; a list is spelled as text, `[0.5, 0.9]`."""

_DISTRIBUTIONS = ("uniform", "loguniform", "randint", "lograndint")
_SHARED = ("run", "dataset")


@dataclass(frozen=True)
class Choice:
    """One of several values, in the order given."""

    path: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(shown(value) for value in self.values)


@dataclass(frozen=True)
class Interval:
    """A distribution of Ray Tune by its name there: numbers from `low` to `high`; whole numbers exclude `high`."""

    path: str
    distribution: str
    low: float
    high: float

    @property
    def is_log(self) -> bool:
        """Whether the logarithm is uniform."""
        return self.distribution.startswith("log")

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return self.distribution.endswith("randint")

    @property
    def largest(self) -> float:
        """The largest value that can be drawn."""
        return self.high - 1 if self.is_whole else self.high

    def __str__(self) -> str:
        return f"{self.distribution}:{self.low:g}:{self.high:g}"


Dimension = Choice | Interval


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep."""

    dimensions: tuple[Dimension, ...]

    @property
    def paths(self) -> list[str]:
        """The dotted paths, in the order given."""
        return [dimension.path for dimension in self.dimensions]

    @property
    def is_listed(self) -> bool:
        """Whether all dimensions are lists."""
        return all(isinstance(dimension, Choice) for dimension in self.dimensions)

    def grid(self) -> Iterator[Values]:
        """Yield all combinations of the lists.

        Raises:
            ConfigError: A dimension is a distribution.
        """
        for dimension in self.dimensions:
            if isinstance(dimension, Interval):
                raise ConfigError(
                    f"--search grid: {dimension.path} is no list; take --search random or tpe, or list its values"
                )
        lists = [dimension.values for dimension in self.dimensions if isinstance(dimension, Choice)]
        return (dict(zip(self.paths, cell, strict=True)) for cell in itertools.product(*lists))

    def to_dict(self) -> dict[str, str]:
        """Return path -> spelling of its list or distribution."""
        return {dimension.path: str(dimension) for dimension in self.dimensions}


def read_space(over: Sequence[str], base: Config) -> Space:
    """Read the space of `--over`.

    Every value has the type of its field. Where only one path is searched, its values also hold by the configuration's rules.

    Args:
        over: PATH=WHAT, or names of YAML files that map PATH to WHAT.
        base: The configuration that the trials share.

    Raises:
        ConfigError: A path is unknown or comes twice, or WHAT is neither a list nor a distribution.
    """
    dimensions: dict[str, Dimension] = {}
    for path, what in _given(over):
        if path in dimensions:
            raise ConfigError(f"--over {path}: comes twice; give all its values at once: {path}=A,B,C")
        dimensions[path] = _dimension(path, what)
    if not dimensions:
        raise ConfigError("--over: nothing to search; give a path of the configuration: stage1.batch_size=8,16,32")
    space = Space(tuple(dimensions.values()))
    if len(space.dimensions) == 1:  # with several, the rules of one can depend on the value of another
        (only,) = space.dimensions
        ends = only.values if isinstance(only, Choice) else (only.low, only.largest)
        for value in ends:
            configured(base, {only.path: value})
    return space


def read_interval(path: str, spelling: str) -> Interval | None:
    """Return the distribution that `str(interval)` spelled, or None for the spelling of a list."""
    name, _, ends = spelling.partition(":")
    if name not in _DISTRIBUTIONS:
        return None
    low, high = map(float, ends.split(":"))
    return Interval(path, name, low, high)


def configured(base: Config, values: Mapping[str, Any], run: str | None = None) -> Config:
    """Return the configuration with values put in, in another run directory if one is given.

    Raises:
        ConfigError: The values break a rule.
    """
    tree = base.to_dict()
    for path, value in values.items():
        *sections, last = path.split(".")
        node = tree
        for section in sections:
            node = node[section]
        is_spelled = isinstance(value, str) and typing.get_origin(config_parsing.type_at(Config, path)) is tuple
        node[last] = yaml.safe_load(value) if is_spelled else value
    return from_dict(tree if run is None else {**tree, "run": run})


def shown(value: Any) -> str:
    """Return a value as one types it: `true`, `0.0004`, `[0.5, 0.9]`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(shown(v) for v in value)}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _given(over: Sequence[str]) -> Iterable[tuple[str, Any]]:
    for argument in over:
        path, separator, text = argument.partition("=")
        if separator:
            yield path, text
        elif argument.endswith((".yaml", ".yml")):
            yield from _file(argument).items()
        else:
            raise ConfigError(
                f"--over {argument}: give PATH=A,B,C or PATH=uniform:LOW:HIGH, or a YAML file that maps paths to such"
            )


def _file(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            tree = yaml.safe_load(stream)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--over {path}: not readable ({type(error).__name__}); give a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--over {path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"--over {path}: must map paths to what is searched, as stage1.batch_size: [8, 16, 32]")
    return {str(key): value for key, value in tree.items()}


def _dimension(path: str, what: Any) -> Dimension:
    """Read one dimension.

    Args:
        path: A dotted path of the configuration.
        what: Text of the command line; from a YAML file also a list, or {distribution: [LOW, HIGH]}.
    """
    if path in _SHARED:
        raise ConfigError(f"--over {path}: all trials share it; give {path}=... before --over")
    kind = config_parsing.type_at(Config, path)
    if isinstance(what, str):
        name, separator, ends = what.partition(":")
        if separator and name in _DISTRIBUTIONS:
            return _interval(path, kind, name, ends.split(":"))
        if separator and kind in (int, float):
            raise ConfigError(f"--over {path}={what}: no such distribution; known are {', '.join(_DISTRIBUTIONS)}")
        what = _listed(path, what)
    if isinstance(what, Mapping) and len(what) == 1:
        ((name, ends),) = what.items()
        if name in _DISTRIBUTIONS and isinstance(ends, list):
            return _interval(path, kind, name, [str(end) for end in ends])
    if isinstance(what, (bool, int, float)):
        what = [what]
    if not isinstance(what, list) or not what:
        raise ConfigError(f"--over {path}={what!r}: give values, A,B,C, or a distribution, uniform:LOW:HIGH")
    read = [config_parsing.read(kind, value, path) for value in what]
    for value in read:
        _check_range(path, value)
    values = [json.dumps(value) if isinstance(value, tuple) else value for value in read]
    return Choice(path, tuple(value for place, value in enumerate(values) if value not in values[:place]))


def _listed(path: str, text: str) -> list[Any]:
    try:
        return list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError:
        raise ConfigError(f"--over {path}={text}: not readable as a list; give A,B,C") from None


def _interval(path: str, kind: Any, name: str, ends: Sequence[str]) -> Interval:
    log, whole = name.startswith("log"), name.endswith("randint")
    spelled = f"--over {path}={name}:{':'.join(ends)}"
    if kind not in (int, float):
        raise ConfigError(f"{spelled}: {path} is no number; give its values, A,B,C")
    if kind is int and not whole:
        raise ConfigError(f"{spelled}: {path} is a whole number; take {'lograndint' if log else 'randint'}:LOW:HIGH")
    if len(ends) != 2:
        raise ConfigError(f"{spelled}: has {len(ends)} numbers; give two, {name}:LOW:HIGH")
    low, high = (config_parsing.read(int if whole else float, _number(end), path) for end in ends)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{spelled}: LOW must be less than HIGH{', which is not drawn itself' if whole else ''}")
    if log and low <= 0:
        raise ConfigError(f"{spelled}: LOW must be positive, since its logarithm is searched")
    for end in (low, high - 1 if whole else high):
        _check_range(path, end)
    return Interval(path, name, low, high)


def _check_range(path: str, value: Any) -> None:
    """Raise ConfigError if a number, or one of a tuple of numbers, is out of the range of its field."""
    for fault in value_faults(config_parsing.hint_at(Config, path), value, path):
        raise ConfigError(f"--over {path}: {shown(fault.value)}: {fault.rule}")


def _number(text: str) -> Any:
    return yaml.safe_load(text) if text else text
