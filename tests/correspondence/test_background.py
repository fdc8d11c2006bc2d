"""Static background among generic keypoints: marks are found, objects that move or are aligned are kept."""

import numpy as np
import pytest

from ray_kplm.correspondence.background import Background, find_background

IMAGES, DIM = 200, 32
HOME = np.array([[0.1, 0.1], [0.9, 0.3], [0.2, 0.9], [0.9, 0.9], [0.1, 0.5], [0.6, 0.4], [0.4, 0.6], [0.5, 0.2]])


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def keypoints(spread, noise, shown=1.0, seed=0):
    """Keypoints of points that spread by so much along each axis, share of the side, with descriptors of this noise."""
    rng = np.random.default_rng(seed)
    count = len(spread)
    xy = HOME[:count] + rng.normal(size=(IMAGES, count, 2)) * np.asarray(spread)[:, None]
    looks = unit(rng.normal(size=(count, DIM)))
    descriptors = unit(looks + rng.normal(size=(IMAGES, count, DIM)) * np.asarray(noise)[:, None] / np.sqrt(DIM))
    seen = rng.random((IMAGES, count)) < shown
    clutter = rng.uniform(size=(IMAGES, 10, 2)), unit(rng.normal(size=(IMAGES, 10, DIM)))
    image, point = np.nonzero(np.concatenate([seen, np.ones((IMAGES, 10), bool)], axis=1))
    places, all_looks = np.concatenate([xy, clutter[0]], axis=1), np.concatenate([descriptors, clutter[1]], axis=1)
    return point, image, places[image, point], all_looks[image, point]


MARK, MOVING, ALIGNED = (
    0.003,
    0.1,
    0.019,
)  # 0.019 along each axis: 2.6 % of the side, the least spread in X-rays of heads


@pytest.mark.parametrize("marks", [1, 3, 5])
@pytest.mark.parametrize("shown", [1.0, 0.3])
def test_marks_are_found_beside_a_moving_object(marks, shown):
    point, image, xy, descriptors = keypoints([MARK] * marks + [MOVING] * 3, [0.3] * marks + [0.5] * 3, shown)
    background = find_background(image, xy, descriptors)
    found = background.shows(xy, descriptors)
    assert found[point < marks].mean() > 0.9
    assert not found[point >= marks].any()
    assert len(background.places()) == marks


def test_a_moving_object_has_no_background():
    _, *sample = keypoints([MOVING] * 8, [0.3] * 8)
    assert find_background(*sample) is None


@pytest.mark.parametrize("seed", range(5))
def test_landmarks_of_an_aligned_category_are_kept_even_if_they_look_the_same(seed):
    _, *sample = keypoints([ALIGNED] * 8, [0.3] * 8, seed=seed)
    assert find_background(*sample) is None


def test_eyes_by_which_faces_were_aligned_are_kept_since_they_look_different():
    _, *sample = keypoints([0.005] * 2 + [0.05] * 6, [1.0] * 8)
    assert find_background(*sample) is None


def test_a_mark_in_images_of_an_aligned_category_is_found_alone():
    point, image, xy, descriptors = keypoints([MARK] + [ALIGNED] * 7, [0.3] * 8)
    found = find_background(image, xy, descriptors).shows(xy, descriptors)
    assert set(point[found]) == {0}


def test_images_that_are_alike_as_a_whole_have_no_background():
    point, image, xy, descriptors = keypoints([0.001] * 8, [0.1] * 8)
    object_alone = point < 8
    assert find_background(image[object_alone], xy[object_alone], descriptors[object_alone]) is None


def test_few_images_and_no_keypoints_show_no_background():
    _, image, xy, descriptors = keypoints([MARK, MOVING], [0.1, 0.1])
    few = image < 4
    assert find_background(image[few], xy[few], descriptors[few]) is None
    assert find_background(image[:0], xy[:0], descriptors[:0]) is None


def test_an_object_in_front_of_a_mark_is_no_background():
    look, other = np.eye(DIM, dtype=np.float32)[:2]
    background = Background(np.array([[0.1, 0.1]]), look[None])
    xy = np.array([[0.1, 0.1], [0.1, 0.1], [0.2, 0.1]])
    assert background.shows(xy, np.stack([look, other, look])).tolist() == [True, False, False]
    assert background.is_near(np.array([[0.12, 0.1], [0.2, 0.1], [np.nan, np.nan]])).tolist() == [True, False, False]


def test_the_background_on_storage_is_the_same():
    _, *sample = keypoints([MARK] * 2 + [MOVING] * 3, [0.3] * 5)
    background = find_background(*sample)
    stored = Background.from_bytes(background.to_bytes())
    np.testing.assert_array_equal(stored.xy, background.xy)
    np.testing.assert_array_equal(stored.descriptors, background.descriptors)
