"""A landmark network trained on annotated images: it learns, mirror images and missing points are right, a backbone stays."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.errors import DataError
from ray_kplm.imaging.synthetic.category import category_of, render
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.predictors import LandmarkPredictor
from ray_kplm.methods.supervised import AnnotatedInputs, HeadObjective, train_supervised
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.schemas import NONE

SIDE, CPU = 64, Placement(torch.device("cpu"), None, False)
PAIRS = category_of("creature").swap_pairs


@pytest.fixture(scope="module")
def config(small_config):
    return load_config(None, [*small_config, "stage2.heatmap_sigma=1.5", "augment.rotate=10", "stage2.decay_at=[0.8]"])


def creatures(first: int, count: int) -> AnnotatedInputs:
    made = [render(0, index, SIDE) for index in range(first, first + count)]
    xy = np.stack([one.landmarks for one in made])
    partners = np.arange(xy.shape[1], dtype=np.int16)
    for a, b in PAIRS:
        partners[a], partners[b] = b, a
    boxes = np.stack([one.box for one in made])
    return AnnotatedInputs(np.stack([one.image for one in made]), xy.astype(np.float32), partners, boxes)


def mean_error(xy: np.ndarray, data: AnnotatedInputs) -> float:
    return float(np.linalg.norm(xy - data.xy, axis=-1).mean())


def test_a_network_from_scratch_learns_more_than_the_mean_shape(config):
    config = replace(config, augment=replace(config.augment, paste=0.0, warp=0.0, rotate=5.0, noise_share=0.0))
    data, losses = creatures(0, 4), []
    learner = train_supervised(
        data, LandmarkObjective(config, 14, from_scratch=True), CPU, iterations=60, seed=0,
        on_iteration=lambda done, loss, learner: losses.append(loss),
    )  # fmt: skip
    predictor = LandmarkPredictor(config, learner.network.state_dict(), data.flip_map, CPU, flip=True)
    assert len(losses) == 60
    assert mean_error(predictor(data.images).xy, data) < 0.8 * mean_error(data.xy.mean(axis=0), data)


def test_the_same_seed_gives_the_same_weights(config):
    data = creatures(0, 4)
    weights = [
        train_supervised(data, LandmarkObjective(config, 14), CPU, iterations=2, seed=seed).network.state_dict()
        for seed in (1, 1, 2)
    ]
    name = "landmarks.output.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_a_training_that_is_continued_ends_with_the_same_weights(config):
    data, states = creatures(0, 4), []
    objective = LandmarkObjective(config, 14)
    whole = train_supervised(
        data, objective, CPU, iterations=4, seed=0,
        on_iteration=lambda done, loss, learner: states.append(learner.state()),
    )  # fmt: skip
    rest = train_supervised(data, objective, CPU, iterations=4, seed=0, start=states[1], done=2)
    for a, b in zip(whole.network.state_dict().values(), rest.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_head_is_trained_and_its_backbone_is_not_changed(config):
    torch.manual_seed(0)
    old, buffer = LandmarkNetwork(config.network, 5), io.BytesIO()
    torch.save({"network": old.state_dict()}, buffer)
    objective = HeadObjective(config, 14)
    learner = train_supervised(creatures(0, 8), objective, CPU, iterations=3, seed=0, start=buffer.getvalue())
    before, after = old.state_dict(), learner.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(before["landmarks.features.1.weight"], after["landmarks.features.1.weight"])
    assert after["landmarks.output.weight"].shape[0] == 14


def test_a_frozen_batch_norm_keeps_its_statistics(config):
    config = replace(config, network=replace(config.network, norm="batch"))
    old, buffer = LandmarkNetwork(config.network, 5), io.BytesIO()
    torch.save({"network": old.state_dict()}, buffer)
    learner = train_supervised(
        creatures(0, 8), HeadObjective(config, 14), CPU, iterations=2, seed=0, start=buffer.getvalue()
    )
    before, after = old.state_dict(), learner.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))


def test_points_that_are_not_annotated_train_nothing():
    data = creatures(0, 3)
    xy = data.xy.copy()
    xy[1, 2] = np.nan
    labels = replace(data, xy=xy).labels()
    assert not labels.present[1, 2]
    assert labels.identity[1, 2] == labels.identity_flipped[1, 2] == NONE
    assert labels.present.sum() == 3 * 14 - 1


def test_mirror_images_show_the_partners_unless_objects_are_turned_to_face_one_way():
    data = creatures(0, 2)
    a, b = PAIRS[0]
    assert data.labels().identity_flipped[0, a] == b
    turned = replace(data, mirrored=np.array([True, False]))
    assert turned.labels().identity_flipped[0, a] == a


def test_images_without_points_are_an_error(config):
    data = creatures(0, 2)
    with pytest.raises(DataError, match="2 images without any annotated point"):
        train_supervised(
            replace(data, xy=np.full_like(data.xy, np.nan)), LandmarkObjective(config, 14), CPU, iterations=1, seed=0
        )
