"""The number of landmarks from the agreement of two halves: planted clusters are found, points without structure are not."""

import numpy as np
import pytest

from ray_kplm.correspondence.stability import (
    Evidence,
    candidates,
    choose_clusters,
    choose_landmarks,
    measure_split,
    principal_components,
    without_structure,
)

SPLITS = 6


def evidence(points, image, landmarks):
    return Evidence.of_splits(landmarks, [measure_split(points, image, landmarks, seed) for seed in range(SPLITS)])


def constructed(excess, error=0.0, found=1.0):
    """Evidence of this excess, whose splits differ so that its standard error is about `error`."""
    offsets = error * np.sqrt(SPLITS) * np.resize([-1.0, 1.0], SPLITS)[:, None]
    agreement = np.asarray(excess)[None] + offsets
    shares = np.broadcast_to(found, agreement.shape)
    return Evidence(tuple(range(4, 4 + len(excess))), agreement, np.zeros_like(agreement), shares)


@pytest.mark.parametrize("planted", [8, 12])
def test_the_planted_number_of_clusters_is_chosen(planted):
    rng = np.random.default_rng(planted)
    centres = rng.normal(size=(planted, 16))
    descriptors = np.concatenate([centres + 0.15 * rng.normal(size=centres.shape) for _ in range(60)])
    image = np.repeat(np.arange(60), planted)
    found = evidence(principal_components(descriptors.astype(np.float32), 16), image, (6, 8, 10, 12, 15))
    choice = choose_landmarks(found)
    assert (choice.landmarks, choice.high, choice.doubts) == (planted, planted, ())


def test_points_without_structure_leave_the_choice_unsure():
    rng = np.random.default_rng(1)
    descriptors = rng.normal(size=(900, 16)) * np.linspace(2, 0.5, 16)
    image = np.repeat(np.arange(60), 15)
    found = evidence(principal_components(descriptors.astype(np.float32), 16), image, (6, 8, 10, 12, 15))
    assert "hardly show a number of landmarks" in " ".join(choose_landmarks(found).doubts)


def test_the_same_split_gives_the_same_agreement_and_another_seed_another_split():
    points = principal_components(np.random.default_rng(2).normal(size=(200, 8)).astype(np.float32), 8)
    image = np.repeat(np.arange(20), 10)
    assert measure_split(points, image, (4, 6), 3) == measure_split(points, image, (4, 6), 3)
    assert measure_split(points, image, (4, 6), 3) != measure_split(points, image, (4, 6), 4)


def test_the_largest_number_within_one_standard_error_of_the_best_is_chosen():
    assert choose_landmarks(constructed([0.3, 0.5, 0.46, 0.44, 0.2])).landmarks == 5
    assert choose_landmarks(constructed([0.3, 0.5, 0.46, 0.44, 0.2], error=0.05)).landmarks == 6
    assert choose_landmarks(constructed([0.3, 0.5, 0.46, 0.44, 0.2], error=0.07)).landmarks == 7


def test_landmarks_without_a_keypoint_in_most_images_are_not_chosen():
    found = [1.0, 0.8, 0.7, 0.6, 0.5]
    assert choose_landmarks(constructed([0.3, 0.5, 0.5, 0.5, 0.9], found=found)).landmarks == 6
    choice = choose_landmarks(constructed([0.3, 0.5, 0.5, 0.5, 0.9], found=0.4))
    assert choice.landmarks == 4
    assert "in fewer than two thirds of the images" in choice.doubts[0]


def test_found_is_the_share_of_images_with_a_point_of_a_cluster():
    centres = np.eye(4, dtype=np.float16).repeat(20, axis=0)  # 20 images of one point at each of four places
    image = np.tile(np.arange(20), 4)
    assert measure_split(centres, image, (4,), 0).found == [1.0]
    kept = image >= np.repeat([0, 0, 0, 10], 20)  # the fourth place in the second half of the images only
    assert measure_split(centres[kept], image[kept], (4,), 0).found == pytest.approx([3.5 / 4])


def test_a_choice_at_the_end_of_the_range_and_one_that_varies_are_doubted():
    assert "largest number compared" in choose_landmarks(constructed([0.1, 0.2, 0.5])).doubts[0]
    landmarks = (4, 12)
    agreement = np.array([[0.6, 0.2], [0.6, 0.2], [0.2, 0.7], [0.2, 0.7]])
    choice = choose_landmarks(Evidence(landmarks, agreement, np.zeros_like(agreement), np.ones_like(agreement)))
    assert (choice.low, choice.high) == landmarks
    assert "other splits of the images choose from 4 to 12" in " ".join(choice.doubts)


def test_an_image_has_no_more_landmarks_than_keypoints():
    assert max(candidates(24.0, 100)) == 20
    assert max(candidates(24.0, 10)) == 10
    assert candidates(3.2, 100) == (3,)


def test_training_clusters_are_those_of_the_thesis_where_there_are_points_enough():
    assert choose_clusters(10, 200_000, 30.0) == 100
    assert choose_clusters(10, 400, 30.0) == 80
    assert choose_clusters(10, 100, 30.0) == 20
    assert choose_clusters(80, 200_000, 90.0) == 160


def test_points_without_structure_keep_the_values_of_each_column():
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float16)
    shuffled = without_structure(points, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(points, axis=0))
    assert (shuffled != points).any()


def test_principal_components_keep_distances_up_to_scale():
    descriptors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    points = principal_components(descriptors, 8).astype(np.float32)
    before = np.linalg.norm(descriptors[0] - descriptors[1:], axis=1)
    after = np.linalg.norm(points[0] - points[1:], axis=1)
    np.testing.assert_allclose(after / before, (after / before).mean(), rtol=5e-3)
    assert np.linalg.norm(points, axis=1).max() <= 1.001
