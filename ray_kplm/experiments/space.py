"""What a sweep searches: dotted paths of the configuration, each with a list of values or a distribution.

stage1.batch_size=8,16,32                     a list
stage1.learning_rate=loguniform:1e-4:2e-3     numbers from LOW to HIGH, both included
method.clusters=randint:50:200                whole numbers
space.yaml                                    a file of such lines: `stage1.batch_size: [8, 16, 32]`,
                                              `stage1.learning_rate: loguniform:1e-4:2e-3`
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from ray_kplm import config_parsing
from ray_kplm.config import Config, from_dict
from ray_kplm.errors import ConfigError

Values = dict[str, Any]
"""A point of the space: dotted path -> value, as YAML holds it."""

_DISTRIBUTIONS = {
    "uniform": (False, False),
    "loguniform": (True, False),
    "randint": (False, True),
    "lograndint": (True, True),
}
"""Whether its logarithm is uniform, and whether its values are whole."""
_SHARED = ("run", "dataset")
_DIGITS = 4
"""Significant ones of a drawn number: what is kept, shown and can be typed is the same number."""


@dataclass(frozen=True)
class Choice:
    """One of some values, in the order given."""

    path: str
    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def __str__(self) -> str:
        return ",".join(shown(value) for value in self.values)


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high, both included; log: uniform by their logarithm; whole: integers."""

    path: str
    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, rng: np.random.Generator) -> float:
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        ends = np.log([low, high]) if self.log else np.array([low, high])
        number = float(rng.uniform(*ends))
        return self.rounded(math.exp(number) if self.log else number)

    def rounded(self, number: float) -> float:
        """The nearest number of the interval that is kept."""
        near = round(number) if self.whole else float(f"{number:.{_DIGITS}g}")
        return min(max(near, self.low), self.high)

    def __str__(self) -> str:
        name = next(name for name, kind in _DISTRIBUTIONS.items() if kind == (self.log, self.whole))
        return f"{name}:{self.low:g}:{self.high:g}"


Dimension = Choice | Interval


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep."""

    dimensions: tuple[Dimension, ...]

    @property
    def paths(self) -> list[str]:
        return [dimension.path for dimension in self.dimensions]

    @property
    def is_listed(self) -> bool:
        """Whether all dimensions are lists."""
        return all(isinstance(dimension, Choice) for dimension in self.dimensions)

    @property
    def size(self) -> float:
        """How many points it has."""
        sizes = (
            len(d.values) if isinstance(d, Choice) else d.high - d.low + 1 if d.whole else math.inf
            for d in self.dimensions
        )
        return math.prod(sizes)

    def grid(self) -> Iterator[Values]:
        """All combinations, the last dimension running fastest. Of lists only."""
        lists = [dimension.values for dimension in self.dimensions if isinstance(dimension, Choice)]
        assert len(lists) == len(self.dimensions)
        return (dict(zip(self.paths, cell, strict=True)) for cell in itertools.product(*lists))

    def draw(self, rng: np.random.Generator) -> Values:
        return {dimension.path: dimension.draw(rng) for dimension in self.dimensions}

    def to_dict(self) -> dict[str, str]:
        """Path -> what was asked for, in one spelling."""
        return {dimension.path: str(dimension) for dimension in self.dimensions}


def read_space(over: Sequence[str], base: Config) -> Space:
    """The space of `--over`: PATH=WHAT, or names of YAML files that map PATH to WHAT.

    Every value is of its field's type and holds by its rules, where they do not depend on another dimension. Raises
    ConfigError for a path that is none or comes twice, and for what is neither a list nor a distribution.
    """
    dimensions: dict[str, Dimension] = {}
    for path, what in _given(over):
        if path in dimensions:
            raise ConfigError(f"--over {path}: comes twice; give all its values at once: {path}=A,B,C")
        dimensions[path] = _dimension(path, what)
    if not dimensions:
        raise ConfigError("--over: nothing to search; give a path of the configuration: stage1.batch_size=8,16,32")
    space = Space(tuple(dimensions.values()))
    if len(space.dimensions) == 1:  # else one dimension's rules can depend on another's value
        (only,) = space.dimensions
        ends = only.values if isinstance(only, Choice) else (only.low, only.high)
        for value in ends:
            configured(base, {only.path: value})
    return space


def configured(base: Config, values: Mapping[str, Any], run: str | None = None) -> Config:
    """The configuration with values put in, in another run directory if one is given. Raises ConfigError."""
    tree = base.to_dict()
    for path, value in values.items():
        *sections, last = path.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = value
    return from_dict(tree if run is None else {**tree, "run": run})


def shown(value: Any) -> str:
    """A value as one types it: `true`, `0.0004`, `[0.5, 0.9]`."""
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
    """what: text of the command line, or of a YAML file also a list, or {distribution: [LOW, HIGH]}."""
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
    values = [list(value) if isinstance(value, tuple) else value for value in read]
    return Choice(path, tuple(value for place, value in enumerate(values) if value not in values[:place]))


def _listed(path: str, text: str) -> list[Any]:
    try:
        return list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError:
        raise ConfigError(f"--over {path}={text}: not readable as a list; give A,B,C") from None


def _interval(path: str, kind: Any, name: str, ends: Sequence[str]) -> Interval:
    log, whole = _DISTRIBUTIONS[name]
    spelled = f"--over {path}={name}:{':'.join(ends)}"
    if kind not in (int, float):
        raise ConfigError(f"{spelled}: {path} is no number; give its values, A,B,C")
    if kind is int and not whole:
        raise ConfigError(f"{spelled}: {path} is a whole number; take {'lograndint' if log else 'randint'}:LOW:HIGH")
    if len(ends) != 2:
        raise ConfigError(f"{spelled}: has {len(ends)} numbers; give two, {name}:LOW:HIGH")
    low, high = (config_parsing.read(int if whole else float, _number(end), path) for end in ends)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{spelled}: LOW must be less than HIGH")
    if log and low <= 0:
        raise ConfigError(f"{spelled}: LOW must be positive, its logarithm is searched")
    return Interval(path, low, high, log, whole)


def _number(text: str) -> Any:
    return yaml.safe_load(text) if text else text
