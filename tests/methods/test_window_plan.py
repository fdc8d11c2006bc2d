"""Plans by windows of parts: every image once before any twice, few parts a block, the same for any number of workers."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.config import load_config
from ray_kplm.methods import build_method
from ray_kplm.methods.window_plan import WHOLE_IMAGES, WindowPlan

PARTS, USABLE = 22, np.random.default_rng(0).integers(400, 513, 22)


def plan(**changes) -> WindowPlan:
    settings = {"parts": PARTS, "images": 512 * PARTS, "iterations": 1500, "views": 16, "flip": True, "seed": (1, 2)}
    return WindowPlan(**(settings | changes))


def stream(of: WindowPlan) -> np.ndarray:
    """Return part, image in the part, seed and flip of all views: (4, n)."""
    found, window = [], 0
    while sum(piece.shape[1] for piece in found) < of.iterations * of.views:
        members = of.members(window)
        part = np.repeat(members, USABLE[members])
        row = np.concatenate([np.arange(n) for n in USABLE[members]])
        shown = of.shown(window, len(part))
        found.append(np.stack([part[shown.image], row[shown.image], shown.seed, shown.flip]))
        window += 1
    return np.concatenate(found, 1)[:, : of.iterations * of.views]


def test_every_image_is_used_once_before_any_is_used_twice():
    part, row, _, _ = stream(plan())
    whole, total = len(part) // USABLE.sum(), USABLE.sum()
    assert whole == 2
    wanted = np.concatenate([1000 * p + np.arange(n) for p, n in enumerate(USABLE)])
    passes = [(1000 * part + row)[i * total : (i + 1) * total] for i in range(whole)]
    for each in passes:
        np.testing.assert_array_equal(np.sort(each), wanted)
    assert not np.array_equal(passes[0], passes[1])


def test_a_window_is_shuffled_and_has_most_parts():
    subject = plan()
    assert [len(subject.members(i)) for i in range(subject.windows)] == [3, 4, 4, 3, 4, 4]
    part = stream(subject)[0]
    first = part[: int(USABLE[subject.members(0)].sum())]
    assert np.count_nonzero(np.diff(first)) > 0.5 * len(first)


@pytest.mark.parametrize(("views", "workers"), [(16, 1), (16, 2), (16, 16), (256, 1), (256, 64)])
def test_a_block_touches_at_most_eight_parts(views, workers):
    subject = plan(views=views, iterations=24_000 // views)
    part = stream(subject)[0]
    step, most = subject.block_iterations(128, workers), 0
    for first in range(0, subject.iterations, step):
        places = subject.places(first, min(first + step, subject.iterations), workers - 1, workers)
        assert len(places) <= 128 or step == 1
        most = max(most, len(set(part[places])))
    assert 4 < most <= 8  # some block lies in two windows


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_every_iteration(workers):
    subject = plan(iterations=30)
    shares = [subject.places(3, 30, rank, workers).reshape(27, -1) for rank in range(workers)]
    np.testing.assert_array_equal(np.concatenate(shares, 1).ravel(), np.arange(3 * 16, 30 * 16))


def test_a_plan_depends_on_its_seed_only_and_flips_half():
    one, again, other = stream(plan()), stream(plan()), stream(plan(seed=(1, 3)))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one[:2], other[:2])
    assert 0.45 < one[3].mean() < 0.55
    none = stream(plan(flip=False))
    assert not none[3].any()
    np.testing.assert_array_equal(none[:3], one[:3])


def test_stage_2_holds_as_many_images_whole_as_a_round():
    options = ["stage1.rounds=2", "stage1.round_iterations=2000", "stage1.batch_size=8", "stage2.iterations=9000"]
    method = build_method(load_config(None, [*options, "dataset=d", "run=r"]))
    assert method.round_images(1) == 32_000
    assert method.landmark_windows(32_000, 63, 0) is None
    windows = method.landmark_windows(32_001, 63, 0)
    assert (windows.iterations, windows.views, windows.parts, windows.flip) == (9000, method.landmark_batch, 63, True)
    none = build_method(load_config(None, [*options, "stage1.rounds=0", "dataset=d", "run=r"]))
    assert none.landmark_windows(WHOLE_IMAGES, 63, 0) is None
    assert none.landmark_windows(WHOLE_IMAGES + 1, 63, 0) is not None
