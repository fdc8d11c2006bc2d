"""Data plans: deterministic, shared among workers, and in passes over all images."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.datasets.sequences import Frames
from ray_kplm.methods.sampling import AnyImages, NearbyFrames, pair_plan, single_plan

IMAGES = np.array([3, 5, 8, 13, 21, 34, 55, 89, 90, 91])


def pairs(**changes):
    settings = {"iterations": 30, "pairs": 4, "flip": True, "seed": (1, 2)} | changes
    return pair_plan(AnyImages(settings.pop("images", IMAGES)), **settings)


def singles(**changes):
    return single_plan(IMAGES, **({"iterations": 30, "batch": 4, "flip": True, "seed": (1, 2)} | changes))


def columns(plan):
    return np.stack([plan.image, plan.seed, plan.flip])


@pytest.mark.parametrize("make", [pairs, singles])
def test_a_plan_depends_on_its_seed_only(make):
    np.testing.assert_array_equal(columns(make()), columns(make()))
    assert not np.array_equal(make().image, make(seed=(1, 3)).image)
    assert len(set(make().seed)) == len(make().seed)


def test_a_plan_has_a_row_for_each_view():
    plan = pairs()
    assert (plan.views, plan.group, plan.iterations, len(plan.image)) == (8, 2, 30, 240)
    plan = singles()
    assert (plan.views, plan.group, plan.iterations, len(plan.image)) == (4, 1, 30, 120)


def test_the_head_of_a_plan_is_its_first_iterations():
    plan = pairs()
    head = plan.head(7)
    assert head.iterations == 7
    np.testing.assert_array_equal(columns(head), columns(plan)[:, : 7 * 8])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_every_iteration_and_keep_pairs(workers):
    plan = pairs()
    shares = [plan.rows(0, plan.iterations, rank, workers).reshape(plan.iterations, -1) for rank in range(workers)]
    assert {s.shape[1] for s in shares} == {8 // workers}
    for iteration in range(plan.iterations):
        together = np.concatenate([s[iteration] for s in shares])
        np.testing.assert_array_equal(np.sort(together), np.arange(8 * iteration, 8 * iteration + 8))
        for share in shares:
            first, second = share[iteration].reshape(-1, 2).T
            assert (first % 2 == 0).all()
            np.testing.assert_array_equal(second, first + 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_plan_is_the_tail_of_the_plan(rank):
    plan = pairs()
    whole = plan.rows(0, 30, rank, 2)
    np.testing.assert_array_equal(plan.rows(11, 30, rank, 2), whole[11 * 4 :])
    np.testing.assert_array_equal(np.concatenate([plan.rows(0, 11, rank, 2), plan.rows(11, 30, rank, 2)]), whole)
    assert plan.rows(30, 30, rank, 2).size == 0


def passes(column: np.ndarray) -> np.ndarray:
    whole = len(column) // len(IMAGES)
    return np.sort(column[: whole * len(IMAGES)].reshape(whole, -1), axis=1)


def test_a_pass_has_every_image_once():
    plan = pairs()
    for column in (singles().image, plan.image[0::2], plan.image[1::2]):
        np.testing.assert_array_equal(passes(column), np.tile(IMAGES, (12, 1)))
    order = singles().image.reshape(12, -1)
    assert len({tuple(row) for row in order}) == 12  # each pass has its own order


def test_a_pass_may_end_within_an_iteration():
    plan = singles(iterations=3, batch=8)
    np.testing.assert_array_equal(passes(plan.image), np.tile(IMAGES, (2, 1)))
    assert len(set(plan.image[20:])) == 4


@pytest.mark.parametrize("make", [pairs, singles])
def test_views_are_flipped_only_if_configured(make):
    assert not make(flip=False).flip.any()
    assert 0.4 < make(iterations=200).flip.mean() < 0.6


def test_views_of_a_pair_are_flipped_independently():
    flip = pairs(iterations=200).flip.reshape(-1, 2)
    counts = np.bincount(2 * flip[:, 0] + flip[:, 1], minlength=4)
    assert counts.min() > 0.2 * len(flip)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pairs_of_one_image_have_the_configured_share(share):
    plan = pair_plan(AnyImages(np.arange(1000), share), iterations=500, pairs=4, flip=False, seed=(0,))
    same = (plan.image[0::2] == plan.image[1::2]).mean()
    assert same == pytest.approx(share, abs=0.04)
    assert len(set(plan.seed.tolist())) > 0.99 * len(plan.seed)  # two views differ even of one image


def test_nearby_frames_are_of_one_sequence_and_close():
    rng = np.random.default_rng(0)
    order = rng.permutation(60)
    sequence, frame = np.repeat([0, 1, 2], 20)[order], np.tile(np.arange(20) * 2, 3)[order]
    source = NearbyFrames(np.arange(60), Frames(sequence, frame), gap=5)
    image, shown = source(rng, 6000)
    np.testing.assert_array_equal(image[:, 0], image[:, 1])  # the first one's labels hold in both
    np.testing.assert_array_equal(image[:, 0], shown[:, 0])
    other = shown[:, 1]
    np.testing.assert_array_equal(sequence[image[:, 0]], sequence[other])
    apart = frame[other] - frame[image[:, 0]]
    assert set(np.abs(apart)) == {2, 4}
    middle = frame[image[:, 0]] == 20
    counts = np.unique(apart[middle], return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 0.7 * counts.max()


def test_a_frame_without_neighbours_is_paired_with_itself():
    frames = Frames(np.array([0, 0, -1, -1, 1]), np.array([0, 9, 3, 3, 0]))
    image, shown = NearbyFrames(np.arange(5), frames, gap=5)(np.random.default_rng(0), 50)
    np.testing.assert_array_equal(image, shown)


@pytest.mark.parametrize("make", [pairs, singles])
def test_views_show_every_image_as_it_faces_one_way(make):
    turn = np.random.default_rng(0).random(100) < 0.5
    plan = make(flip=turn)
    np.testing.assert_array_equal(plan.flip, turn[plan.image])
    assert 0 < plan.flip.sum() < len(plan.flip)


@pytest.mark.parametrize("make", [pairs, singles])
def test_how_views_are_mirrored_does_not_change_what_else_they_show(make):
    one, other, none = make(flip=np.ones(100, bool)), make(flip=True), make(flip=False)
    for plan in (other, none):
        np.testing.assert_array_equal(plan.image, one.image)
        np.testing.assert_array_equal(plan.seed, one.seed)
    assert one.flip.all()
    assert not none.flip.any()
