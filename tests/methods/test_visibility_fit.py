"""The fit tells landmarks that something covers and those on a side that is turned away, on made samples of known geometry."""

import numpy as np
import pytest
import torch

from ray_kplm.evaluation.visibility import area_under_curve
from ray_kplm.methods.visibility import OWN_FEATURES, layout, probabilities
from ray_kplm.methods.visibility_fit import Sample, fit, foreshortening

OWN = len(OWN_FEATURES)
ALONG, UP = np.meshgrid([-50, -25, 0, 25, 50], [-40, 0, 40])
"""Longitudes and latitudes of landmarks on a sphere, degrees."""
K = ALONG.size


def layouts(turns, seed=0, noise=0.01):
    """Layouts of the sphere's landmarks seen after turns (N,) about the vertical axis, degrees: (N, 2 K), and their cosines."""
    along, up = np.radians(ALONG.ravel() + turns[:, None]), np.radians(UP.ravel())
    xy = np.stack([np.cos(up) * np.sin(along), np.broadcast_to(np.sin(up), along.shape)], axis=-1)
    xy = xy + np.random.default_rng(seed).normal(0, noise, xy.shape)
    return layout(torch.from_numpy(xy)).numpy(), np.cos(up) * np.cos(along)


def sample_of(images=1500, seed=0, spread=40):
    """Images of the sphere; the first feature is low where a landmark is covered, and one feature does not vary."""
    rng = np.random.default_rng(seed)
    shapes, facing = layouts(rng.uniform(-spread, spread, images), seed)
    features = np.concatenate([rng.normal(size=(images, K, OWN)), np.repeat(shapes[:, None], K, axis=1)], axis=-1)
    features[..., 1] = 0.5
    occluded, hidden = features.copy(), rng.random((images, K)) < 0.25
    occluded[hidden, 0] -= 4
    return Sample(features, occluded, hidden, ~hidden), facing


def found(model, features):
    return probabilities(
        *(torch.from_numpy(np.asarray(v, np.float64)) for v in (features, model.weights, model.offset))
    ).numpy()


@pytest.fixture(scope="module")
def model():
    return fit(sample_of()[0])


def test_landmarks_that_are_turned_away_have_the_lowest_probability(model):
    sample, facing = sample_of(seed=5)
    away = facing < 0.2
    assert 0.02 < away.mean() < 0.2
    score = found(model, sample.features)
    outer = np.abs(ALONG.ravel()) == 50
    each = [area_under_curve(score[:, k], ~away[:, k]) for k in np.flatnonzero(outer)]
    assert min(each) > 0.9
    assert score[away].mean() < score[~away].mean() - 0.2


def test_a_landmark_that_an_occluder_hides_has_a_low_probability(model):
    sample, _ = sample_of(seed=3, spread=5)
    score = found(model, sample.occluded)
    assert area_under_curve(score.ravel(), ~sample.hidden.ravel()) > 0.95
    assert found(model, sample.features).mean() > 0.9


def test_objects_that_do_not_turn_have_no_landmark_turned_away():
    sample, _ = sample_of(spread=0)
    assert np.quantile(found(fit(sample), sample.features), 0.05) > 0.9


def test_at_most_a_tenth_is_turned_away_of_an_object_that_changes_its_shape():
    rng, (sample, _) = np.random.default_rng(2), sample_of()
    shapes = layout(torch.from_numpy(layouts(np.zeros(1500))[0].reshape(-1, K, 2) + rng.normal(0, 0.4, (1500, K, 2))))
    features = np.concatenate([sample.features[..., :OWN], np.repeat(shapes.numpy()[:, None], K, axis=1)], axis=-1)
    score = found(fit(Sample(features, features, sample.hidden, sample.clear)), features)
    assert score.mean() > 0.8


def test_foreshortening_is_the_area_around_a_landmark_however_the_object_is_rotated_in_the_image():
    flat = np.random.default_rng(0).normal(size=(40, 6, 2)) * 0.01 + np.random.default_rng(1).normal(size=(6, 2))
    narrow = flat.copy()
    narrow[:20, :, 0] *= 0.5
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    narrow[30:] = narrow[30:] @ turn
    area = foreshortening(narrow.reshape(40, -1) - narrow.mean(1, keepdims=True).repeat(6, 1).reshape(40, -1))
    assert np.median(area[:20]) == pytest.approx(0.5, abs=0.05)
    assert np.median(area[20:30]) == pytest.approx(1, abs=0.05)
    assert np.median(area[30:]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("landmarks", [2, 3])
def test_few_landmarks_on_a_line_and_a_single_image_have_finite_weights(landmarks):
    rng = np.random.default_rng(0)
    line = np.repeat(np.linspace(0, 1, landmarks)[:, None], 2, axis=1).reshape(1, 1, -1)
    features = np.concatenate(
        [rng.normal(size=(30, landmarks, OWN)), np.broadcast_to(line, (30, landmarks, 2 * landmarks))], axis=-1
    )
    hidden = rng.random((30, landmarks)) < 0.3
    sample = Sample(features, features, hidden, ~hidden)
    for some in (sample, Sample(*(value[:1] for value in vars(sample).values()))):
        fitted = fit(some)
        assert np.isfinite(fitted.weights).all()
        assert np.isfinite(fitted.offset).all()


def test_the_same_sample_gives_the_same_model_and_pieces_join_in_their_order():
    sample, _ = sample_of(200)
    half = [Sample(*(value[rows] for value in vars(sample).values())) for rows in (slice(80), slice(80, None))]
    joined, whole = fit(Sample.join(half)), fit(sample)
    np.testing.assert_array_equal(joined.weights, whole.weights)
    np.testing.assert_array_equal(joined.offset, whole.offset)
    assert Sample.join(half).images == 200
