"""A detector of a category seen from the side as a file: it turns the images that the detector turns, and says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ray_kplm.detectors import export_file as module
from ray_kplm.detectors.export_file import MAX_DIFFERENCE, export_file
from ray_kplm.detectors.graph_facing import GraphFacing
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.landmark_detector import LandmarkDetector, Landmarks
from ray_kplm.methods.predicted import Predicted
from ray_kplm.run import Run

FACING_DIFFERENCE = 0.05


@pytest.fixture(scope="module")
def seen_from_the_side(finished_run, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("side")
    return finished_run(folder, "network.depth=1", "compute.batch_images=4", faces=True)


@pytest.fixture(scope="module")
def detector(seen_from_the_side) -> LandmarkDetector:
    return LandmarkDetector.load(seen_from_the_side.folder.path, device="cpu")


@pytest.fixture(scope="module")
def written(seen_from_the_side) -> str:
    path = f"{seen_from_the_side.folder.path}/a.onnx"
    report = export_file(seen_from_the_side, path)
    assert report.max_difference <= MAX_DIFFERENCE
    assert report.max_facing_difference <= FACING_DIFFERENCE
    return path


def assert_same(found, expected) -> None:
    ways = [one.facing < 0 for one in expected]
    assert any(ways)
    assert not all(ways)
    for one, other in zip(found, expected, strict=True):
        assert one.facing == pytest.approx(other.facing, abs=FACING_DIFFERENCE)
        np.testing.assert_allclose(one.xy, other.xy, atol=MAX_DIFFERENCE / 10, rtol=0)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-4, rtol=0)
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-3, rtol=0)


@pytest.mark.parametrize("boxes", [None, np.tile(np.float32([5, 8, 60, 45]), (10, 1))], ids=["whole", "boxes"])
def test_an_onnx_file_finds_the_landmarks_and_facings_of_the_detector(written, detector, picture, boxes):
    images = [picture(seed) for seed in range(10)]
    assert_same(LandmarkDetector.load(written).predict(images, boxes), detector.predict(images, boxes))


def test_boxes_are_in_pixels_of_the_pictures_and_may_be_unknown(written, detector, picture):
    images = np.stack([picture(seed) for seed in range(3)])
    session = onnxruntime.InferenceSession(written)
    assert [one.name for one in session.get_outputs()][-1] == "facing"

    def facing(**given):
        return session.run(["facing"], {"images": images, **given})[0]

    unknown, one = np.full((3, 4), np.nan, np.float32), np.float32([[10, 5, 70, 55]])
    alone = facing()
    np.testing.assert_allclose(alone, [found.facing for found in detector.predict(images)], atol=FACING_DIFFERENCE)
    np.testing.assert_array_equal(facing(boxes=unknown), alone)
    np.testing.assert_array_equal(facing(boxes=one), facing(boxes=np.repeat(one, 3, axis=0)))
    mixed = facing(boxes=np.concatenate([unknown[:1], one, unknown[:1]]))
    np.testing.assert_allclose(mixed[[0, 2]], alone[[0, 2]], atol=1e-6)
    assert mixed[1] == pytest.approx(facing(boxes=one)[1], abs=1e-6)
    assert mixed[1] != pytest.approx(alone[1], abs=1e-3)


def test_the_file_says_that_it_gives_facings(written):
    texts = {one.key: one.value for one in onnx.load(written).metadata_props}
    assert (texts["has_facing"], texts["flip"]) == ("true", "false")


@pytest.mark.slow
def test_a_file_that_turns_other_images_is_not_written(seen_from_the_side, monkeypatch, tmp_path):
    class Other(GraphFacing):
        def __init__(self, rule):
            super().__init__(replace(rule, template=replace(rule.template, direction=-rule.template.direction)))

    monkeypatch.setattr(module, "GraphFacing", Other)
    with pytest.raises(RunError, match=r"not written, .* facings by [12]"):
        export_file(seen_from_the_side, tmp_path / "a.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_landmarks_are_compared_unless_the_facing_is_of_either_sign():
    def differences(facing: float, expected: float) -> tuple[float, ...]:
        point, value = np.zeros((1, 2), np.float32), np.zeros(1, np.float32)
        found = Predicted(point[None] + 9, value[None], value[None], np.float32([facing]))
        return module._differences([found], [Landmarks(point, value, value, value == 0, expected)])

    assert differences(0.01, -0.01) == pytest.approx((0, 0, 0.02))
    assert differences(0.01, 0.02) == pytest.approx((9, 0, 0.01))
    assert differences(0.5, -0.5) == pytest.approx((9, 0, 1))
    assert np.isnan(differences(np.nan, 0.5)[2])


def test_other_features_are_refused(seen_from_the_side, tmp_path):
    run = seen_from_the_side
    with pytest.raises(ConfigError, match="found by features = 'aliked', which are no part of a graph"):
        export_file(Run(run.folder, replace(run.config, features="aliked")), Path(tmp_path) / "a.onnx")


@pytest.mark.slow
def test_a_program_of_pytorch_finds_the_same(seen_from_the_side, detector, picture, tmp_path):
    export_file(seen_from_the_side, tmp_path / "a.pt2", "torch")
    program, images = LandmarkDetector.load(tmp_path / "a.pt2"), [picture(seed) for seed in range(10)]
    boxes = np.tile(np.float32([5, 8, 60, 45]), (10, 1))
    assert_same(program.predict(images), detector.predict(images))
    assert_same(program.predict(images, boxes), detector.predict(images, boxes))
