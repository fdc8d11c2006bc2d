"""Labels that a fit puts in doubt."""

import numpy as np

from ray_kplm.analysis.label_doubts import label_doubts
from ray_kplm.analysis.label_views import LabelledViews
from ray_kplm.labels.labels import Labels
from ray_kplm.points.fit import fit_points
from tests.points.test_fit import noisy

N, SIDE = 20, 128
NAMES = ["a", "b", "c"]


def doubts(change=None, *, turned: bool = False) -> list[str]:
    """What is said of the labels of a shape in pictures of 128 px, after a change of the labels (N, 3, 2)."""
    xy, targets = noisy(N, 7)
    if change is not None:
        change(targets)
    labels = Labels(
        tuple(NAMES),
        tuple(f"{n}.png" for n in range(N)),
        targets * SIDE,
        np.ones((N, 3), bool),
        np.full((N, 4), np.nan),
    )
    seen = LabelledViews(
        np.arange(N), xy, np.ones((N, xy.shape[1]), np.float32), targets, np.full(N, float(SIDE)), np.arange(N),
        np.full(N, turned), [], [],
    )  # fmt: skip
    return label_doubts(fit_points(xy, targets), seen, labels, NAMES)


def test_good_labels_are_in_no_doubt():
    assert doubts() == []
    assert doubts(turned=True) == []


def test_a_wrong_label_is_named_with_its_image_and_distance():
    def wrong(targets):
        targets[4, 1] += [0.3, 0.0]

    (line,) = doubts(wrong)
    assert line.startswith("look at b in 4.png: ")
    assert 30 < int(line.split(": ")[1].split(" px")[0]) < 45


def test_a_point_that_never_moves_is_named():
    def still(targets):
        targets[:, 2] = 0.25

    assert "c: is labelled at the same place in all pictures; was it moved to the object?" in doubts(still)


def test_an_object_that_faces_the_other_way_is_named():
    def mirrored(targets):
        targets[3] = targets[3] * [-1, 1] + [1, 0]

    lines = doubts(mirrored, turned=True)
    assert any(line.startswith("1 of 20 objects are taken to face the other way, e.g. in 3.png") for line in lines)
    assert not any("face the other way" in line for line in doubts(mirrored))
