"""Predicted landmarks of a few odd pictures, which all formats are given."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ray_kplm import schemas

NAN = float("nan")
PARTNERS = [1, 0, -1]
ODD, TWO = 'a, "b"/ünï =1.jpg', "more/sub/two.png"
ROWS = [
    # Found, inferred and absent.
    ("plain.png", [[10.25, 20.5], [30.5, 5.25], [1.0, 2.0]], [0.8, 0.5, 0.1], [0.9, 0.3, 0.01], (64, 48)),
    # On both borders of the picture, and not detected; a name with a comma, quotes and letters beyond ASCII.
    (ODD, [[-0.5, -0.25], [639.5, 479.4], [NAN, NAN]], [0.5, 0.4, 0.0], [0.8, 0.7, 0.0], (640, 480)),
    # Two objects of one picture, in two parts; a point of the second lies beyond the border.
    (f"{TWO}#0", [[1.125, 2.875], [5.0, 6.5], [7.75, 8.25]], [0.5, 0.6, 0.7], [0.6, 0.7, 0.8], (100, 80)),
    (f"{TWO}#1", [[90.5, 70.25], [80.0, 60.5], [101.0, 8.0]], [0.3, 0.9, 0.7], [0.5, 0.95, 0.9], (100, 80)),
    # Nothing found.
    ("none.png", [[NAN, NAN]] * 3, [0.0] * 3, [0.0] * 3, (64, 48)),
]
FLAGS = [[2, 1, 0], [2, 2, 0], [2, 2, 2], [2, 2, 2], [0, 0, 0]]
"""Visibility of `ROWS`."""


def table(rows) -> pa.Table:
    plain = [
        {
            "image_id": image_id,
            "xy": xy,
            "confidence": confidence,
            "probability": probability,
            "found": [bool(np.isfinite(x) and p >= 0.5) for (x, _), p in zip(xy, probability, strict=True)],
            "width": size[0],
            "height": size[1],
        }
        for image_id, xy, confidence, probability, size in rows
    ]
    return pa.Table.from_pylist(plain, schemas.SOURCE_LANDMARKS)
