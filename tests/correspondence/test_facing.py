"""Facings are recovered from descriptors alone, on planted facings with noise; what a mirror image is, is told by likeness."""

import numpy as np
import pytest

from ray_kplm.correspondence import facing as module
from ray_kplm.correspondence.facing import FacingTemplate, facings, fit_template, mirror_evidence, synchronise

IMAGES, DIM = 300, 80


def mirror(descriptors):
    """The descriptors of the mirror images: what was on the left is on the right."""
    return np.concatenate(np.split(descriptors, 2, axis=1)[::-1], axis=1)


def planted(images=IMAGES, noise=1.0, seed=0):
    """Descriptors of objects seen from the side and of their mirror images, and which way each object faces.

    The objects of one facing have a common descriptor and noise of the same variance.
    """
    rng = np.random.default_rng(seed)
    facing = np.where(rng.random(images) < 0.4, 1.0, -1.0)
    common = np.random.default_rng(99).normal(size=DIM)
    plain = (common + noise * rng.normal(size=(images, DIM))).astype(np.float32)
    plain[facing < 0] = mirror(plain[facing < 0])
    return plain, mirror(plain), facing


def share_right(found, truth):
    """The share of images whose facing is right, whichever way is called positive."""
    right = float((np.sign(found) == truth).mean())
    return max(right, 1 - right)


def centred(plain, mirrored):
    mean = (plain.mean(axis=0) + mirrored.mean(axis=0)) / 2
    return plain - mean, mirrored - mean


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_planted_facings_are_recovered_from_noisy_descriptors(noise):
    plain, mirrored, truth = planted(noise=noise)
    found, agreement = synchronise(*centred(plain, mirrored))
    assert set(np.unique(found)) == {-1.0, 1.0}
    assert share_right(found, truth) >= 0.99
    assert 0.9 < agreement <= 1


def test_facings_agree_less_where_there_is_no_facing():
    noise = np.random.default_rng(3).normal(size=(IMAGES, DIM)).astype(np.float32)
    _, agreement = synchronise(*centred(noise, mirror(noise)))
    _, planted_agreement = synchronise(*centred(*planted()[:2]))
    assert agreement < planted_agreement - 0.2


def test_the_facings_are_the_same_in_every_run():
    plain, mirrored, _ = planted()
    first, second = (synchronise(*centred(plain, mirrored))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_image_that_is_given_mirrored_faces_the_other_way_and_nothing_else_changes():
    plain, mirrored, _ = planted()
    turned = np.random.default_rng(1).random(IMAGES) < 0.5
    swapped = np.where(turned[:, None], mirrored, plain), np.where(turned[:, None], plain, mirrored)
    before, agreement = synchronise(*centred(plain, mirrored))
    after, agreement_after = synchronise(*centred(*swapped))
    assert share_right(after, before * np.where(turned, -1, 1)) == 1
    assert agreement_after == pytest.approx(agreement, abs=1e-6)


def test_the_order_of_the_images_does_not_matter():
    plain, mirrored, _ = planted()
    order = np.random.default_rng(1).permutation(IMAGES)
    in_order, reordered = (synchronise(*centred(plain[rows], mirrored[rows]))[0] for rows in (np.arange(IMAGES), order))
    assert share_right(reordered, in_order[order]) == 1


def test_a_template_gives_the_facing_of_new_images_and_how_sure_it_is():
    template = fit_template(*planted()[:2]).template
    plain, mirrored, truth = planted(images=500, seed=7)
    odds = template.half_log_odds(plain, mirrored)
    assert share_right(odds, truth) >= 0.99
    certain = facings(odds)
    assert ((certain > -1.0001) & (certain < 1.0001)).all()
    assert np.abs(certain).mean() > 0.9
    unsure = template.half_log_odds(
        *(np.random.default_rng(5).normal(size=(500, DIM)).astype(np.float32) for _ in "ab")
    )
    assert np.abs(unsure).mean() < 0.5 * np.abs(odds).mean()


def test_an_image_and_its_mirror_image_have_opposite_facings():
    template = fit_template(*planted()[:2]).template
    plain, mirrored, _ = planted(images=50, seed=7)
    np.testing.assert_allclose(
        template.half_log_odds(plain, mirrored), -template.half_log_odds(mirrored, plain), atol=1e-5
    )
    symmetric = plain + mirrored
    np.testing.assert_allclose(facings(template.half_log_odds(symmetric, symmetric)), 0, atol=1e-6)


def test_the_facing_of_a_sampled_image_is_that_of_the_rule_that_was_fitted_to_the_others():
    plain, mirrored, truth = planted(images=60, noise=1.5)
    fitted = fit_template(plain, mirrored)
    assert share_right(fitted.half_log_odds, truth) >= 0.95
    unit = [d / np.linalg.norm(d, axis=1, keepdims=True) for d in centred(plain, mirrored)]
    difference, facing = (unit[0] - unit[1]).astype(np.float64), np.sign(fitted.half_log_odds)
    ridge = module._RIDGE * (difference**2).sum() / len(difference)
    factors = []
    for n in range(0, 60, 7):
        others, way = np.delete(difference, n, axis=0), np.delete(facing, n)
        direction = np.linalg.solve(others.T @ others + ridge * np.eye(DIM), others.T @ way)
        factors.append(fitted.half_log_odds[n] / (difference[n] @ direction))
    assert factors[0] > 0
    assert factors == pytest.approx([factors[0]] * len(factors), rel=1e-3)


def test_identical_images_give_a_finite_template():
    plain = np.ones((12, DIM), np.float32)
    template = FacingTemplate(np.zeros(DIM, np.float32), np.ones(DIM, np.float32), 3.0)
    assert template.half_log_odds(plain, plain).tolist() == [0.0] * 12


def symmetric(images=IMAGES, noise=0.2, seed=0):
    """Descriptors of objects seen from the front: each is nearly its own mirror image, and they differ among themselves."""
    rng = np.random.default_rng(seed)
    half = rng.normal(size=DIM // 2) + rng.normal(size=(images, DIM // 2))
    plain = np.concatenate([half, half], axis=1) + noise * rng.normal(size=(images, DIM))
    return plain.astype(np.float32), mirror(plain).astype(np.float32)


def test_objects_seen_from_the_side_are_told_from_symmetric_ones():
    side, front = mirror_evidence(*planted(noise=0.6)[:2]), mirror_evidence(*symmetric())
    assert side.seen_from_the_side
    assert not front.seen_from_the_side
    assert side.symmetric < 0.05
    assert front.symmetric > 0.95
    assert side.kurtosis < 1.5 < 2.5 < front.kurtosis
    assert side.contrast < 0 < front.contrast


def test_the_evidence_does_not_depend_on_which_images_were_mirrored():
    plain, mirrored, _ = planted()
    turned = (np.arange(IMAGES) % 3 == 0)[:, None]
    one, other = mirror_evidence(plain, mirrored), mirror_evidence(mirrored, plain)
    assert vars(other) == pytest.approx(vars(one), abs=1e-5)
    mixed = mirror_evidence(np.where(turned, mirrored, plain), np.where(turned, plain, mirrored))
    assert (mixed.symmetric, mixed.kurtosis) == pytest.approx((one.symmetric, one.kurtosis), abs=1e-4)
