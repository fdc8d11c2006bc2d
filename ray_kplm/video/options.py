"""How the landmarks of videos are smoothed. Commands read this before they import NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ray_kplm.ranges import Range, check_ranges

CUTOFFS = Range(0, 1000, above=True)
BETAS = Range(0, 1e6)


@dataclass(frozen=True)
class SmoothOptions:
    """How landmarks of videos are smoothed."""

    method: Literal["none", "one-euro"] = "none"
    """The filter."""
    min_cutoff: Annotated[float, CUTOFFS] = 1.0
    """Cut-off frequency at rest, Hz; a lower one trembles less and lags more."""
    beta: Annotated[float, BETAS] = 20.0
    """Rise of the cut-off frequency with the speed, Hz for a speed of the picture's longer side in a second."""
    derivative_cutoff: Annotated[float, CUTOFFS] = 1.0
    """Cut-off frequency of the speed, Hz."""

    def __post_init__(self) -> None:
        check_ranges(self, "smooth: ")
