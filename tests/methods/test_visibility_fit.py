"""The fit recovers the probabilities of a made sample, from labels that are missing at random and from hidden landmarks."""

import numpy as np
import pytest

from ray_kplm.evaluation.visibility import area_under_curve, calibration_error
from ray_kplm.methods.visibility import OWN_FEATURES
from ray_kplm.methods.visibility_fit import Sample, fit

K, OWN = 3, len(OWN_FEATURES)
LABEL_RATE = np.array([0.9, 0.6, 0.3])
"""Share of the visible landmarks that have a label."""


def drawn(images, seed):
    """Images whose first feature, and whose layout, say what is visible: the features, and what is visible."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, K, OWN + 2 * K))
    features[..., OWN:] = features[:, :1, OWN:]  # the layout is of the image
    features[..., 1] = 0.5  # a feature that does not vary
    logit = 2.5 + 2 * features[..., 0] + 1.5 * features[..., OWN]
    return features, rng.random((images, K)) < 1 / (1 + np.exp(-logit))


def sample_of(images=3000, seed=0, hidden_share=0.25):
    rng = np.random.default_rng(seed + 1000)
    features, visible = drawn(images, seed)
    occluded, hidden = features.copy(), rng.random((images, K)) < hidden_share
    occluded[hidden, 0] -= 4
    return Sample(features, visible & (rng.random((images, K)) < LABEL_RATE), occluded, hidden, ~hidden)


def probabilities(model, features):
    return 1 / (1 + np.exp(-((features * model.weights).sum(-1) + model.offset)))


def test_probabilities_are_calibrated_though_most_labels_of_a_landmark_are_missing():
    model = fit(sample_of())
    features, visible = drawn(4000, seed=7)
    found = probabilities(model, features)
    for k in range(K):
        assert area_under_curve(found[:, k], visible[:, k]) > 0.88
        assert calibration_error(found[:, k], visible[:, k]) < 0.12, LABEL_RATE[k]
        assert found[:, k].mean() == pytest.approx(visible[:, k].mean(), abs=0.12)


def test_a_landmark_that_an_occluder_hides_has_a_low_probability():
    model, other = fit(sample_of()), sample_of(seed=3)
    found = probabilities(model, other.occluded)
    assert np.median(found[other.hidden]) < 0.3 < 0.7 < np.median(found[other.clear])


def test_occluders_alone_tell_what_is_there_where_every_image_has_a_label():
    sample = sample_of()
    everywhere = Sample(**{**vars(sample), "labelled": np.ones_like(sample.labelled)})
    found = probabilities(fit(everywhere), sample.occluded)
    assert area_under_curve(found.ravel(), ~sample.hidden.ravel()) > 0.9


def test_a_landmark_that_is_never_labelled_and_a_single_image_have_finite_weights():
    sample = sample_of(50)
    never = Sample(**{**vars(sample), "labelled": np.zeros_like(sample.labelled)})
    single = Sample(*(value[:1] for value in vars(sample).values()))
    for model in (fit(never), fit(single)):
        assert np.isfinite(model.weights).all()
        assert np.isfinite(model.offset).all()
    assert (probabilities(fit(never), sample.features) < 0.2).all()


def test_the_same_sample_gives_the_same_model_and_pieces_join_in_their_order():
    sample = sample_of(200)
    half = [Sample(*(value[rows] for value in vars(sample).values())) for rows in (slice(80), slice(80, None))]
    joined = fit(Sample.join(half))
    np.testing.assert_array_equal(joined.weights, fit(sample).weights)
    np.testing.assert_array_equal(joined.offset, fit(sample).offset)
    assert Sample.join(half).images == 200
