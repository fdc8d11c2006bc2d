"""The probability of a landmark being there: features of heatmaps, flags of COCO, and what a detector returns."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.detectors.stored import detector_fingerprint, export, visibility_model
from ray_kplm.errors import DamageError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.landmark_inference import LandmarkInference
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.methods.visibility import (
    OWN_FEATURES,
    VISIBILITY,
    VISIBILITY_STEP,
    VisibilityModel,
    features,
    found_of,
    layout,
    visibility_flags,
)
from ray_kplm.network import heatmaps
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.storage import Folder

K, SIDE, SIGMA = 4, 16, 0.75
POINTS = torch.tensor([[[3.0, 4.0], [10.0, 5.0], [4.0, 11.0], [11.0, 12.0]]])


def maps_of(xy=POINTS, height=1.0):
    return height * heatmaps.render(xy, torch.ones(xy.shape[:2]), SIDE, SIGMA)


def own(maps, mirrored=None, at=0):
    mean = maps if mirrored is None else (maps + mirrored) / 2
    return dict(zip(OWN_FEATURES, features(maps, mirrored, mean, SIGMA)[0, at].tolist(), strict=False))


def test_flags_are_those_of_coco():
    xy = np.array([[0, 0], [1, 1], [2, 2], [3, 3], [np.nan, np.nan]], np.float32)
    probability = np.array([0.6, 0.599, 0.3, 0.299, 0.9], np.float32)
    flags = visibility_flags(xy, probability, 0.6)
    assert flags.dtype == np.int8
    assert flags.tolist() == [2, 1, 1, 0, 0]
    assert visibility_flags(xy, np.full(5, np.nan, np.float32)).tolist() == [2, 2, 2, 2, 0]
    assert visibility_flags(xy[None], probability[None]).tolist() == [[2, 2, 1, 1, 0]]
    assert ((visibility_flags(xy, probability, 0.6) == 2) == found_of(xy, probability, 0.6)).all()


def test_a_clear_peak_has_the_height_of_the_heatmap_and_no_second_peak():
    found = own(maps_of(height=0.5))
    assert found["height"] == found["least_height"] == pytest.approx(0.5)
    assert found["sharpness"] > 0.95
    assert found["second_peak"] == pytest.approx(0)
    assert found["mirror_distance"] == 0


def test_features_tell_weak_spread_doubled_and_contradicting_peaks():
    clear = own(maps_of())
    other = POINTS.clone()
    other[0, 0] = torch.tensor([12.0, 3.0])
    doubled = own(maps_of() + 0.5 * maps_of(other))
    assert doubled["second_peak"] == pytest.approx(0.5, abs=0.01)
    assert doubled["spread"] > clear["spread"] + 1
    spread = own(maps_of() + 0.1)
    assert spread["mass"] > clear["mass"] + 1
    assert spread["sharpness"] < clear["sharpness"] - 0.05
    contradicting = own(maps_of(), maps_of(other))
    assert contradicting["mirror_distance"] == pytest.approx(np.log1p(np.hypot(9, 1)), abs=0.01)
    assert own(maps_of(), 0.3 * maps_of())["least_height"] == pytest.approx(0.3)


def test_the_layout_does_not_depend_on_place_and_size():
    torch.testing.assert_close(layout(POINTS), layout(2 * POINTS + 7))
    assert layout(POINTS).shape == (1, 2 * K)
    assert not torch.allclose(layout(POINTS), layout(POINTS * torch.tensor([1.0, 2.0])))


def test_features_are_of_the_own_heatmap_and_then_of_the_layout():
    found = features(maps_of(), None, maps_of(), SIGMA)
    assert found.shape == (1, K, len(OWN_FEATURES) + 2 * K)
    torch.testing.assert_close(found[0, :, len(OWN_FEATURES) :], layout(POINTS).expand(K, -1), atol=1e-3, rtol=0)


def model(rng=None) -> VisibilityModel:
    rng = rng or np.random.default_rng(5)
    count = len(OWN_FEATURES) + 2 * K
    return VisibilityModel(
        rng.normal(0, 0.3, (K, count)).astype(np.float32), rng.normal(size=(K, 2)).astype(np.float32)
    )


@pytest.fixture(scope="module")
def network(small_config):
    config = load_config(None, [*small_config, f"method.landmarks={K}"])
    torch.manual_seed(1)
    return LandmarkNetwork(config.network, K).eval()


@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_are_those_of_the_model(network, flip):
    partners = torch.tensor([1, 0, -1, 3])
    module = LandmarkInference(network, partners, SIGMA, flip=flip, visibility=model()).eval()
    with torch.inference_mode():
        image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        _, _, probability = module(image)
        found = module.features(*module.maps(image)).numpy()
    own, both = len(OWN_FEATURES), found * model().weights
    covered, turned = both[..., :own].sum(-1) + model().offset[:, 0], both[..., own:].sum(-1) + model().offset[:, 1]
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-covered)) / (1 + np.exp(-turned)), atol=1e-5)
    assert probability.std() > 0.01
    no_partner = found[:, 2, OWN_FEATURES.index("mirror_distance")]
    assert (no_partner == 0).all(), "a landmark without a partner has no second opinion"


def test_a_module_without_a_model_gives_no_probability(network):
    module = LandmarkInference(network, torch.full((K,), -1), SIGMA, flip=True, visibility=None)
    with torch.inference_mode():
        assert module(torch.rand(2, 3, 64, 64))[2].isnan().all()


@pytest.fixture
def run(tmp_path, small_config, network) -> Run:
    """A run with a finished stage 2, as earlier versions ended."""
    run = Run.start(load_config(None, [*small_config, f"method.landmarks={K}", f"run={tmp_path / 'run'}"])).save()
    buffer = io.BytesIO()
    torch.save({"network": network.state_dict()}, buffer)
    step = run.step("stage2", "landmarks", {}, {})
    step.folder.write_json(CHANNELS, Channels.first(np.ones(K, bool)).to_dict())
    step.folder.write_bytes(NETWORK, buffer.getvalue())
    step.finish()
    return run


def add_model(run: Run) -> None:
    step = run.step(VISIBILITY_STEP, "visibility", {}, {})
    step.folder.write_json(VISIBILITY, model().to_dict())
    step.finish()


def test_a_detector_of_an_earlier_version_finds_every_landmark_without_probability(run):
    found = LandmarkDetector.load(run.folder.path, device="cpu").predict(np.zeros((64, 64, 3), np.uint8))[0]
    assert np.isnan(found.probability).all()
    assert found.found.all()


def test_an_exported_detector_has_the_probabilities_of_the_run(run, tmp_path):
    before = detector_fingerprint(run)
    add_model(run)
    assert detector_fingerprint(run) != before, "predictions without probabilities would be taken for these"
    export(run, Folder.at(tmp_path / "exported"))
    exported = Run.open(tmp_path / "exported")
    np.testing.assert_array_equal(visibility_model(exported).weights, model().weights)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    one, two = (
        LandmarkDetector.load(f, device="cpu").predict(image)[0] for f in (run.folder.path, exported.folder.path)
    )
    np.testing.assert_array_equal(one.probability, two.probability)
    assert np.isfinite(one.probability).all()
    assert (one.found == (one.probability >= 0.5)).all()


def test_a_model_of_other_features_is_refused_with_the_way_out(run):
    add_model(run)
    plain = model().to_dict() | {"features": ["height"]}
    step = run.step(VISIBILITY_STEP, "visibility", {}, {})
    step.folder.write_json(VISIBILITY, json.loads(json.dumps(plain)))
    step.finish()
    with pytest.raises(DamageError, match="features"):
        visibility_model(run)


def test_a_model_is_read_as_it_was_written(tmp_path):
    Folder.at(tmp_path).write_json(VISIBILITY, model().to_dict())
    again = VisibilityModel.read(Folder.at(tmp_path))
    np.testing.assert_array_equal(again.weights, model().weights)
    np.testing.assert_array_equal(replace(again).offset, model().offset)
    assert VisibilityModel.read(Folder.at(tmp_path / "none")) is None
