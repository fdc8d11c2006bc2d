"""Mean shapes and similarities of shapes that are known."""

import numpy as np
import pytest

from ray_kplm.evaluation.canonical_frame import fit_to_images, mean_shape, to_canonical

SHAPE = np.array([[0, 0], [30, 0], [30, 20], [5, 12]], float)


def moved(images, rng, mirrored=False):
    """Return the shape turned, scaled, moved and, in half of the images, mirrored: (N, 4, 2)."""
    out = []
    for n in range(images):
        angle, scale = rng.uniform(-0.5, 0.5), rng.uniform(0.8, 1.25)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        side = [-1 if mirrored and n % 2 else 1, 1]
        out.append((SHAPE * side) @ turn.T + rng.uniform(-20, 20, 2))
    return np.stack(out)


@pytest.mark.parametrize("mirrored", [False, True])
def test_similar_shapes_coincide_in_the_canonical_frame(mirrored):
    xy = moved(9, np.random.default_rng(0), mirrored)
    shape = mean_shape(xy, mirrored=mirrored)
    similarities = fit_to_images(shape, xy, mirrored=mirrored)
    np.testing.assert_allclose(to_canonical(similarities, xy), np.broadcast_to(shape, xy.shape), atol=1e-6)
    assert (np.linalg.det(similarities[:, :, :2]) < 0).any() == mirrored


def test_the_mean_shape_has_the_mean_place_and_size():
    xy = moved(50, np.random.default_rng(1))
    shape = mean_shape(xy, mirrored=False)
    np.testing.assert_allclose(shape.mean(axis=0), xy.mean(axis=(0, 1)))
    radius = np.sqrt(((xy - xy.mean(axis=1, keepdims=True)) ** 2).sum(axis=-1).mean(axis=1)).mean()
    assert np.sqrt(((shape - shape.mean(axis=0)) ** 2).sum(axis=-1).mean()) == pytest.approx(radius)


def test_missing_landmarks_do_not_change_the_fit():
    xy = moved(9, np.random.default_rng(2))
    shape = mean_shape(xy, mirrored=False)
    whole = fit_to_images(shape, xy, mirrored=False)
    xy[3, 1] = np.nan
    np.testing.assert_allclose(fit_to_images(shape, xy, mirrored=False), whole, atol=1e-6)


def test_an_image_of_one_landmark_is_only_moved():
    xy = moved(9, np.random.default_rng(3))
    shape = mean_shape(xy, mirrored=False)
    xy[0, 1:] = np.nan
    np.testing.assert_allclose(fit_to_images(shape, xy, mirrored=False)[0, :, :2], np.eye(2))
    xy[0] = np.nan
    assert np.isfinite(fit_to_images(shape, xy, mirrored=False)).all()


def test_landmarks_that_no_image_shows_do_not_break_the_mean_shape():
    xy = moved(9, np.random.default_rng(4))
    xy[:, 2] = np.nan
    assert np.isfinite(mean_shape(xy, mirrored=True)).all()
    assert np.isfinite(mean_shape(np.full_like(xy, np.nan), mirrored=False)).all()
