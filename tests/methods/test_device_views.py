"""Views made by PyTorch: those of the CPU's augmentation, without its rounding, and each its own in any batch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.view_parameters import draw_views
from ray_kplm.methods.device_views import DeviceViews, can_make
from ray_kplm.methods.prefetch import Columns

SIZE, VIEWS = 64, 24
CPU = torch.device("cpu")
SEEDS, FLIP = np.arange(VIEWS), np.arange(VIEWS) % 3 == 0
STILL = {"scale": (1, 1), "translate": 0, "rotate": 0}
PLAIN = {"brightness": (1, 1), "contrast": (1, 1), "colour_share": 0, "blur_share": 0, "noise_share": 0, "paste": 0}
EVERYTHING = {"warp": 0.06, "colour_share": 1, "blur_share": 1, "blur": 1.2, "noise_share": 1, "paste": 0}
BOX = np.array([12.0, 14.0, 40.0, 50.0])


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3), smooth, coloured, with black and white places."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


SIDES = ((64, 64), (50, 64), (64, 37), (150, 90), (31, 40), (200, 200))
CROPS = [photo(*SIDES[i % len(SIDES)], seed=i) for i in range(VIEWS)]


def inputs(config: AugmentConfig, rows: np.ndarray | slice = slice(None), boxed=None) -> Columns:
    """The columns that a Ray Data task returns."""
    parameters = draw_views(config, SEEDS[rows], FLIP[rows])
    crops = [CROPS[i] for i in np.arange(VIEWS)[rows]]
    made = Augmenter(config, SIZE).inputs(parameters, crops, boxed or [None] * len(crops))
    return {**vars(made), "seed": SEEDS[rows], "flip": FLIP[rows], "image": np.arange(VIEWS)[rows]}


def grey_levels(views: Columns) -> np.ndarray:
    return 255 * views["picture"].cpu().numpy()


@pytest.mark.parametrize(
    ("changes", "mean", "beyond_2"),
    [
        (PLAIN, 0.35, 1e-4),  # mean error of rounding 0.25; OpenCV rounds places to 1/32 pixel
        (PLAIN | {"warp": 0.08}, 0.35, 1e-4),
        (PLAIN | {"brightness": (0.6, 1.4)}, 0.4, 1e-3),
        (PLAIN | {"contrast": (0.5, 1.6)}, 0.5, 1e-3),
        (PLAIN | {"colour_share": 1, "hue": (0, 0)}, 0.45, 1e-3),
        (PLAIN | {"colour_share": 1, "saturation": (1, 1)}, 0.8, 0.1),  # the hue of a pixel has 256 steps on a CPU
        (PLAIN | {"blur_share": 1, "blur": 2.5}, 0.4, 1e-4),
        (PLAIN | {"noise_share": 1}, 0.4, 1e-3),
        (EVERYTHING, 1.0, 0.1),
    ],
)
def test_views_are_those_of_the_cpu_without_its_rounding(changes, mean, beyond_2):
    config = AugmentConfig(**changes)
    expected = Augmenter(config, SIZE).views(draw_views(config, SEEDS, FLIP), CROPS)
    made = DeviceViews(config, SIZE, CPU)(inputs(config))
    error = np.abs(grey_levels(made) - expected.picture)
    assert error.mean() < mean
    assert (error > 2).mean() <= beyond_2
    np.testing.assert_allclose(made["crop_to_view"], expected.crop_to_view, atol=1e-4)
    np.testing.assert_array_equal(np.broadcast_to(made["shifts"], expected.shifts.shape), expected.shifts)
    assert made["picture"].dtype == torch.float32
    assert set(made) == {"picture", "crop_to_view", "shifts", "flip", "image"}


def test_a_view_does_not_depend_on_its_batch():
    config = AugmentConfig(**EVERYTHING)
    make = DeviceViews(config, SIZE, CPU)
    whole = make(inputs(config))
    for rows in (slice(5, 6), np.array([23, 0, 7])):
        part = make(inputs(config, rows))
        for name in ("crop_to_view", "shifts", "image"):
            np.testing.assert_array_equal(part[name], whole[name][rows])
        np.testing.assert_allclose(part["picture"], whole["picture"][torch.arange(VIEWS)[rows]], atol=1e-6)


def test_without_a_range_the_view_is_the_input():
    config = AugmentConfig(**STILL, **PLAIN)
    made = DeviceViews(config, SIZE, CPU)(inputs(config) | {"flip": np.zeros(VIEWS, bool)})
    np.testing.assert_allclose(grey_levels(made)[0], CROPS[0], atol=1e-3)


def test_points_follow_a_pasted_object():
    """The object is white, its points are its corners; in a view they must be where white ends."""
    config = AugmentConfig(**(PLAIN | {"paste": 1, "rotate": 0, "scale": (1, 1)}))
    crop, other = np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE, 3), np.uint8)
    crop[14:51, 12:41] = 255
    parameters = draw_views(config, SEEDS, FLIP)
    made = Augmenter(config, SIZE).inputs(parameters, [crop] * VIEWS, [Boxed(BOX, other, BOX)] * VIEWS)
    views = DeviceViews(config, SIZE, CPU)(vars(made) | {"seed": SEEDS, "flip": FLIP})
    centre = np.einsum("bij,j->bi", views["crop_to_view"], [26, 32, 1])
    white = grey_levels(views)[..., 0] / 255
    rows, columns = np.indices((SIZE, SIZE))
    found = np.stack([(white * columns).sum((1, 2)), (white * rows).sum((1, 2))], 1) / white.sum((1, 2))[:, None]
    assert np.abs(centre - [26, 32]).max() > 5
    inside = (np.abs(centre - SIZE / 2) < 12).all(1)  # the whole object is in the view
    assert inside.sum() > 5
    np.testing.assert_allclose(found[inside], centre[inside], atol=0.5)


def test_views_that_tasks_made_are_copied():
    picture = np.stack([photo(SIZE, SIZE, i) for i in range(3)])
    batch = {"picture": picture, "shifts": np.ones(3), "image": np.arange(3)}
    made = DeviceViews(AugmentConfig(), SIZE, CPU)(batch)
    np.testing.assert_allclose(grey_levels(made), picture, atol=1e-3)
    assert made["shifts"] is batch["shifts"]


def test_flow_and_own_transforms_are_left_to_the_tasks():
    assert can_make(AugmentConfig(), moving=False)
    assert not can_make(AugmentConfig(), moving=True)
    assert not can_make(AugmentConfig(extra="mine.yaml"), moving=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", [EVERYTHING, PLAIN | {"warp": 0.06}, {"paste": 0}])
def test_cuda_makes_the_same_views(changes):
    config = AugmentConfig(**changes)
    batch = inputs(config)
    cuda = torch.device("cuda", torch.cuda.current_device())
    on_gpu, on_cpu = (DeviceViews(config, SIZE, device)(batch)["picture"].cpu() for device in (cuda, CPU))
    assert float((on_gpu - on_cpu).abs().mean()) < 1e-4
    assert float(((on_gpu - on_cpu).abs() > 1 / 255).float().mean()) < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_gpu():
    config = AugmentConfig(**EVERYTHING)
    batch = inputs(config)
    make = DeviceViews(config, SIZE, torch.device("cuda", torch.cuda.current_device()))
    make(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        make(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
