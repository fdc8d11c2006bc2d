"""When a trial is not worth going on with: asynchronous successive halving (Li et al. 2018, arXiv 1810.05934)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ray_kplm.errors import ConfigError


@dataclass(frozen=True)
class Halving:
    """Rungs are rounds: `grace`, then each `reduction` times as late. At a rung a trial goes on if it is among the best
    1 / `reduction` of those that have come there so far, itself among them; the first one always does.

    Nobody waits for anybody: what is known when a trial arrives decides, and stays decided.
    """

    grace: int = 1
    """First round at whose end trials are compared; 0 is the warm-up."""
    reduction: float = 3.0

    def __post_init__(self) -> None:
        if self.grace < 0:
            raise ConfigError(f"--grace-rounds {self.grace}: must be at least 0, the warm-up")
        if self.reduction <= 1:
            raise ConfigError(f"--reduction {self.reduction:g}: must be more than 1; 3 lets the best third go on")

    def rungs(self, rounds: int) -> list[int]:
        """The rounds, up to the last, at whose end trials are compared."""
        found, number = [], self.grace
        while number <= rounds:
            found.append(number)
            number = max(number + 1, math.ceil(number * self.reduction))
        return found

    def stops(self, value: float | None, others: Sequence[float | None]) -> bool:
        """Whether a trial ends at a rung. value: its objective there, lower is better, None: it has none; others: theirs."""
        here = [math.inf if v is None or math.isnan(v) else v for v in (value, *others)]
        kept = max(1, math.floor(len(here) / self.reduction))
        return here[0] > sorted(here)[kept - 1]
