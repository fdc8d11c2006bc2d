"""Ranges of numbers, declared at the field that holds the number: `Annotated[float, Range(0, 1)]`.

`range_faults` checks every declared range of a dataclass, sections included; NaN and infinity are in no range. The reference of
the configuration and its JSON schema take the ranges from the fields. Ranges with a name are those of options of the command
line, too.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from ray_kplm.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`."""

    low: float
    high: float
    above: bool = False
    """Whether `low` itself is left out."""
    below: bool = False
    """Whether `high` itself is left out."""
    or_zero: bool = False
    """Whether 0 is allowed, too."""

    def holds(self, value: float) -> bool:
        """Return whether a number is in the range."""
        if self.or_zero and value == 0:
            return True
        over = value > self.low if self.above else value >= self.low
        return bool(over and (value < self.high if self.below else value <= self.high))

    def __str__(self) -> str:
        low, high = shown_number(self.low), shown_number(self.high)
        words = f"{'above ' if self.above else ''}{low} to {'below ' if self.below else ''}{high}"
        return f"0 or {words}" if self.or_zero else words


SHARES = Range(0, 1)
PART_SHARES = Range(0, 1, below=True)
COUNTS = Range(1, 10**9)
PROCESSES = Range(1, 4096)
SEEDS = Range(0, 2**32 - 1)
"""The seeds that all generators take."""
MARGINS = Range(0, 10)
PROBABILITIES = Range(0, 1)
MIN_PROBABILITY = 0.5
"""Least probability of a landmark that is reported as found, unless the user says otherwise."""
SIDES = Range(1, 16_384)
"""Sides of stored pictures, px."""
PIXELS = Range(1, 178_956_970)
"""Pixels of a picture at most: Pillow decodes no larger one."""
FILE_BYTES = Range(1, 2**40)
PART_IMAGES = Range(1, 1_000_000)
ROUNDS = Range(1, 100_000)
TRIALS = Range(1, 1_000_000)
REDUCTIONS = Range(1, 1000, above=True)

Share = Annotated[float, SHARES]
PartShare = Annotated[float, PART_SHARES]
"""A share that is not the whole."""
Weight = Annotated[float, Range(0, 1e6)]
Sigma = Annotated[float, Range(0, 100)]
Count = Annotated[int, COUNTS]
CountOrZero = Annotated[int, Range(0, 10**9)]
Processes = Annotated[int, PROCESSES]
ProcessesOrZero = Annotated[int, Range(0, 4096)]
BatchSize = Annotated[int, Range(1, 65_536)]
Seed = Annotated[int, SEEDS]


class Fault(NamedTuple):
    """A value that is out of its range."""

    path: str
    value: Any
    rule: str


def range_faults(section: Any, prefix: str = "") -> Iterator[Fault]:
    """Yield the values of a dataclass that are out of their ranges.

    Args:
        section: The dataclass; its fields that are dataclasses are checked, too.
        prefix: Path of the dataclass with a final dot.
    """
    hints = typing.get_type_hints(type(section), include_extras=True)
    for field in dataclasses.fields(section):
        value, path = getattr(section, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from range_faults(value, f"{path}.")
        else:
            yield from value_faults(hints[field.name], value, path)


def check_ranges(options: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first value of a dataclass that is out of its range."""
    for fault in range_faults(options, prefix):
        raise ConfigError(f"{fault.path} = {fault.value!r}: {fault.rule}")


def value_faults(hint: Any, value: Any, path: str) -> Iterator[Fault]:
    """Yield a fault if a value, or a number in a tuple, is out of the range of its field's type."""
    allowed = range_of(hint)
    if allowed is None or value is None or isinstance(value, bool):
        return
    if isinstance(value, tuple):
        if not all(map(allowed.holds, value)):
            yield Fault(path, list(value), f"each number must be {allowed}")
        elif typing.get_args(hint)[-1] is not Ellipsis and list(value) != sorted(value):
            yield Fault(path, list(value), "the first number must not be above the second")
    elif not (allowed.holds(value) or (or_auto(hint) and value == 0)):
        yield Fault(path, value, f"must be {allowed}{', or auto' if or_auto(hint) else ''}")


def range_of(hint: Any) -> Range | None:
    """Return the range of a field's type: its own, that of its entries, or that of the number in a union; None: none."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return next((mark for mark in parts[1:] if isinstance(mark, Range)), None)
    return next(filter(None, map(range_of, parts)), None) if origin is not None else None


def or_auto(hint: Any) -> bool:
    """Return whether a field may also be a word, such as `auto`, which stands as 0 in a configuration."""
    return typing.get_origin(hint) is Annotated and any(isinstance(mark, str) for mark in typing.get_args(hint))


def shown_number(value: float) -> str:
    """Return a number as it stands in texts: 1,000,000, 0.05."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}" if abs(value) >= 10_000 else f"{int(value)}"
    return f"{value:g}"
