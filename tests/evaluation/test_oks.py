"""OKS by its closed form, exp(-d^2 / (2 area (2 sigma)^2)) of a point, and AP and AR by hand."""

import numpy as np
import pytest

from ray_kplm.evaluation.oks import oks_figures

AREA, SIGMA = 10_000.0, 0.05
LEVELS = 101
"""Of recall, 0 to 1, over which COCO averages precision."""


def off_by(similarity):
    """How far a point is off whose OKS is this."""
    return np.sqrt(-2 * AREA * (2 * SIGMA) ** 2 * np.log(similarity))


def figures(*similarities, scores=None, **options):
    """Images of one point each, found at a distance that gives the similarity; None: not found."""
    truth = np.full((len(similarities), 1, 2), 50.0)
    found = np.array([[[50.0, 50.0 + off_by(s)] if s else [np.nan, np.nan]] for s in similarities])
    scores = scores or np.ones(len(similarities))
    return oks_figures(found, scores, truth, np.full(len(truth), AREA), [SIGMA], **options)


def test_one_image_passes_the_thresholds_below_its_similarity():
    found = figures(0.62)  # 0.5, 0.55 and 0.6 of ten thresholds
    assert found["AP"] == pytest.approx(0.3)
    assert found["AR"] == pytest.approx(0.3)
    assert (found["AP_0.4"], found["AP_0.5"], found["AP_0.75"]) == pytest.approx((1, 1, 0))
    assert found["images"] == 1


def test_the_relaxed_threshold_does_not_enter_the_means():
    found = figures(0.45)
    assert (found["AP_0.4"], found["AR_0.4"], found["AP"], found["AR"]) == pytest.approx((1, 1, 0, 0))


def test_precision_depends_on_the_order_of_scores():
    # Half of the images are found, so recall ends at 0.5 and 51 of 101 levels have a precision: 1 where the found one
    # comes first, 1/2 where it comes second.
    first = figures(1.0, None, scores=[0.9, 0.1])
    assert first["AP"] == pytest.approx(51 / LEVELS)
    assert first["AR"] == pytest.approx(0.5)
    second = figures(1.0, None, scores=[0.1, 0.9])
    assert second["AP"] == pytest.approx(0.5 * 51 / LEVELS)
    assert second["AR"] == pytest.approx(0.5)


def test_a_point_not_found_scores_zero_and_one_not_annotated_is_left_out():
    truth = np.array([[[10.0, 10.0], [90.0, 90.0]]])
    half = oks_figures([[[10.0, 10.0], [np.nan, np.nan]]], [1.0], truth, [AREA], [SIGMA, SIGMA])
    assert (half["AP_0.5"], half["AP_0.75"]) == pytest.approx((1, 0))  # (1 + 0) / 2
    truth[0, 1] = np.nan
    whole = oks_figures([[[10.0, 10.0], [np.nan, np.nan]]], [1.0], truth, [AREA], [SIGMA, SIGMA])
    assert whole["AP"] == pytest.approx(1.0)


def test_each_point_has_its_sigma():
    truth = np.array([[[10.0, 10.0], [90.0, 90.0]]])
    off = off_by(0.6)
    found = [[[10.0 + off, 10.0], [90.0 + off, 90.0]]]
    # Twice the sigma, a quarter of the exponent: (0.6 + 0.6^(1/4)) / 2 = 0.740
    result = oks_figures(found, [1.0], truth, [AREA], [SIGMA, 2 * SIGMA], also_at=(0.735, 0.745))
    assert (result["AP_0.735"], result["AP_0.745"]) == pytest.approx((1, 0))


def test_images_without_points_or_area_are_left_out():
    truth = np.full((3, 1, 2), 50.0)
    truth[1] = np.nan
    result = oks_figures(np.full((3, 1, 2), 50.0), np.ones(3), truth, [AREA, AREA, np.nan], [SIGMA])
    assert result["images"] == 1
    assert result["AP"] == pytest.approx(1.0)
    assert oks_figures(truth[1:2], [1.0], truth[1:2], [AREA], [SIGMA]) == {"images": 0}


def test_large_objects_count_as_small_ones():
    assert figures(0.62)["AP"] == pytest.approx(0.3)
    far = oks_figures([[[1e7, 0.0]]], [1.0], [[[1e7, 0.0]]], [1e12], [SIGMA])  # beyond COCO's own "all"
    assert far["AP"] == pytest.approx(1.0)
