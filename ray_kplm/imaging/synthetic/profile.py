"""The side-view category: an animal in a meadow, from its random draws to a canvas with landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.synthetic.animal import Floats, articulate
from ray_kplm.imaging.synthetic.animal_paint import draw_pelt, paint_animal, surface_of, visible_points
from ray_kplm.imaging.synthetic.marks import draw_background_marks
from ray_kplm.imaging.synthetic.meadow import draw_meadow, ground_shadow
from ray_kplm.imaging.synthetic.posture import draw_build, draw_posture, draw_side_view
from ray_kplm.imaging.synthetic.scene import SUPERSAMPLING, Image, canvas_pixels


def paint_profile(
    rng: np.random.Generator, size: int, marks: Floats
) -> tuple[Image, NDArray[np.float32], NDArray[np.bool_]]:
    """Paint one animal.

    Args:
        rng: Draws everything; what it draws does not depend on `size` and `marks`.
        size: Side of the image, pixels.
        marks: (M, 2), centres of the background marks, image pixels.

    Returns:
        The canvas, finer than the image by `SUPERSAMPLING`; the landmarks (L, 2), image pixels; and which are visible, (L,).
    """
    posture = draw_posture(rng)
    body = articulate(draw_build(rng), posture)
    pelt = draw_pelt(rng)
    view = draw_side_view(rng, body, posture.pitch, size)
    on_canvas = view.enlarged(SUPERSAMPLING)
    feet = on_canvas.project(body.feet)
    ground = feet[:, 1].max() + posture.airborne * on_canvas.pixels_per_unit
    canvas = draw_meadow(rng, SUPERSAMPLING * size, ground)
    ground_shadow(rng, canvas, (feet[:, 0].mean(), ground), 0.6 * on_canvas.pixels_per_unit)
    draw_background_marks(canvas, canvas_pixels(marks))
    surface = surface_of(body, on_canvas, SUPERSAMPLING * size)
    paint_animal(canvas, surface, pelt, on_canvas)
    return canvas, view.project(body.landmarks).astype(np.float32), visible_points(body, surface, on_canvas)
