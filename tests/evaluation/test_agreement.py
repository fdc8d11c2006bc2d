"""Agreement of two detectors on the same images."""

import numpy as np
import pytest

from ray_kplm.evaluation.agreement import MIN_IMAGES, agreement

RNG = np.random.default_rng(0)
OWN = RNG.uniform(0.3, 0.7, (60, 4, 2))


def test_landmarks_that_determine_each_other_agree():
    other = OWN[:, ::-1] * 0.8 + 0.1
    found = agreement(OWN, other)
    assert found["agreement"] == pytest.approx(1, abs=0.02)
    assert found["error"] < 0.5
    assert found["error_of_other"] < 0.5
    assert found["mean_position_error"] > 10


def test_unrelated_landmarks_do_not_agree():
    found = agreement(OWN, RNG.uniform(0.3, 0.7, (60, 3, 2)))
    assert found["agreement"] < 0.1


def test_half_of_the_landmarks_agree_by_half():
    other = np.concatenate([OWN[:, :2], RNG.uniform(0.3, 0.7, (60, 2, 2))], axis=1)
    assert 0.3 < agreement(OWN, other)["agreement"] < 0.6


def test_undetected_landmarks_are_filled_and_left_out_of_the_error():
    own = OWN.copy()
    own[::5, 1] = np.nan
    own[:, 3] = np.nan
    found = agreement(own, OWN)
    assert found["error"] < 0.5
    assert 0.5 < found["agreement"] < 1


def test_few_images_have_no_agreement():
    found = agreement(OWN[: MIN_IMAGES - 1], OWN[: MIN_IMAGES - 1])
    assert set(found.values()) == {None}
