"""Mirror partners of points."""

import numpy as np
import pytest

from ray_kplm.points.name_partners import partners_of_names, partners_of_places


@pytest.mark.parametrize(
    ("names", "partners"),
    [
        (["left_eye", "nose", "right_eye"], (2, 1, 0)),
        (["eye_L", "eye_R", "Mouth"], (1, 0, 2)),
        (["LEye", "REye", "leftEar", "rightEar"], (1, 0, 3, 2)),
        (["l_fore_foot", "r_fore_foot", "l_hind_foot", "tail"], (1, 0, 2, 3)),
        (["Left knee 1", "Left knee 2", "right knee 2"], (0, 2, 1)),
        (["upright", "cleft", "lip"], (0, 1, 2)),
        (["a", "b"], (0, 1)),
    ],
)
def test_names_tell_partners(names, partners):
    assert partners_of_names(names) == partners


def test_places_tell_partners_where_names_do_not():
    landmarks = np.array([[-1.0, 0], [1, 0], [0, 1], [0, -2]])
    points = np.array([[-0.5, 0.5], [0.5, 0.5], [0, -1], [0.9, -1.5]])
    angle = 0.4
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    partners = partners_of_places(points @ turn + 3, landmarks @ turn + 3, [1, 0, 2, 3])
    assert partners == (1, 0, 2, 3)  # the last one has no point opposite
    assert partners_of_places(points, landmarks, [0, 1, 2, 3]) == (0, 1, 2, 3)
