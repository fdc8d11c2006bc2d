"""Results of shards that are reduced by addition."""

from __future__ import annotations

from typing import Self


class Reducible:
    """A dataclass whose instances add up field by field."""

    def __add__(self, other: Self) -> Self:
        others = vars(other)
        return type(self)(**{name: own + others[name] for name, own in vars(self).items()})
