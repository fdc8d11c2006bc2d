"""Conversion of float results to JSON, which has no NaN and no infinity."""

import math

import numpy as np
from numpy.typing import ArrayLike


def json_number(value: float) -> float | None:
    """Return the value as a float, or None if it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None


def json_numbers(values: ArrayLike) -> list[float | None]:
    """Return a one-dimensional array as a list, with None for each NaN or infinite value."""
    return [json_number(value) for value in np.asarray(values, dtype=np.float64)]
