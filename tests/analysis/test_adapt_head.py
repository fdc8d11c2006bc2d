"""Points with a head of their own: what is stored is what was trained, and `--points` finds it."""

from dataclasses import replace

import numpy as np
import pytest

from ray_kplm.analysis.adapt_head import (
    head_flip_map,
    head_inputs,
    head_predictor,
    remove_head,
    train_head,
    try_head,
    write_head,
)
from ray_kplm.analysis.label_views import LabelledViews
from ray_kplm.detectors.stored import detector_fingerprint, landmark_predictor
from ray_kplm.errors import DataError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.inputs import worker_placement
from ray_kplm.points.fit import fit_points
from ray_kplm.points.layout import Layout
from ray_kplm.points.stored import LANDMARKS, point_folder
from ray_kplm.schemas import NONE

SIDE = 64
LAYOUT = Layout("", ("eye_left", "eye_right", "nose"), (1, 0, 2))


def labelled(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of a bright square each, with points at its corners and its centre."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (count, SIDE, SIDE, 3), np.uint8)
    corner = rng.integers(8, 36, (count, 2))
    for image, (x, y) in zip(images, corner, strict=True):
        image[y : y + 16, x : x + 16] = 230
    return images, np.stack([corner + np.array(shift) for shift in ((0, 0), (16, 0), (8, 8))], axis=1).astype(
        np.float32
    )


def test_a_stored_head_predicts_what_was_trained_under_its_names(noise_run):
    images, xy = labelled(6)
    data = head_inputs(noise_run, images, xy, head_flip_map(LAYOUT))
    learner, folder = train_head(noise_run, data, iterations=3), point_folder(noise_run.folder, "three")
    write_head(noise_run, folder, LAYOUT, learner, {"labels": 6})
    stored = landmark_predictor(noise_run, "three")(worker_placement(noise_run.config.compute))
    np.testing.assert_allclose(
        stored(images).xy, head_predictor(noise_run, learner, data.flip_map)(images).xy, atol=1e-4
    )
    detector = LandmarkDetector.load(noise_run.folder.path, device="cpu", points="three")
    assert detector.names == LAYOUT.names
    assert detector.predict([images[0]])[0].xy.shape == (3, 2)
    assert len(LandmarkDetector.load(noise_run.folder.path, device="cpu").names) == 4


def test_another_head_has_another_fingerprint_and_a_removed_one_leaves_nothing(noise_run):
    images, xy = labelled(6)
    data, folder = head_inputs(noise_run, images, xy, head_flip_map(LAYOUT)), point_folder(noise_run.folder, "three")
    marks = []
    for iterations in (1, 2):
        write_head(noise_run, folder, LAYOUT, train_head(noise_run, data, iterations=iterations), {"of": iterations})
        marks.append(detector_fingerprint(noise_run, "three"))
    assert len({*marks, detector_fingerprint(noise_run, LANDMARKS)}) == 3
    remove_head(folder)
    assert folder.names() == ["points.json"]
    assert not folder.folders()


def test_points_without_partners_are_not_shown_in_mirror_images():
    assert head_flip_map(Layout("", ("a", "b"), (0, 1))).tolist() == [NONE, NONE]
    assert head_flip_map(LAYOUT).tolist() == [1, 0, 2]


def seen_views(count: int) -> LabelledViews:
    images, xy = labelled(count)
    landmarks = np.random.default_rng(1).random((count, 4, 2))  # they say nothing of the points
    return LabelledViews(
        np.arange(count), landmarks, np.full((count, 4), np.nan, np.float32), xy.astype(np.float64) / SIDE,
        np.full(count, float(SIDE)), np.arange(count), np.zeros(count, bool), list(images), [],
    )  # fmt: skip


def test_a_head_is_judged_by_labels_that_it_did_not_see(noise_run):
    seen = seen_views(10)
    fit = fit_points(seen.xy, seen.targets)
    exact = replace(fit, errors=np.zeros_like(fit.errors))
    trial, learner = try_head(noise_run, seen, exact, LAYOUT, iterations=2)
    assert trial.images == 2
    assert learner is None, "two iterations are not better than an exact map"
    bad = replace(fit, errors=np.full_like(fit.errors, 9.0))
    trial, learner = try_head(noise_run, seen, bad, LAYOUT, iterations=2)
    assert 0 < trial.error < trial.map_error == 9
    assert learner is not None


def test_too_few_labels_for_a_head_are_an_error(noise_run):
    seen = seen_views(6)
    with pytest.raises(DataError, match="needs 10 labelled images that differ, and 6 do"):
        try_head(noise_run, seen, fit_points(seen.xy, seen.targets), LAYOUT)
