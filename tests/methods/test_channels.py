"""Channels of the landmark detector: their landmarks, merges, and the state of the head after a merge."""

import io

import numpy as np
import torch

from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.correspondence.merging import Merged
from ray_kplm.imaging.warp import IDENTITY_SHIFT
from ray_kplm.methods.batch import Views
from ray_kplm.methods.channels import Channels, keep_channels
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.trainer import Learner, Schedule, load_weights
from ray_kplm.network.compute import Placement
from ray_kplm.schemas import NONE

CONFIG = load_config(None, ["network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4"])


def test_the_chosen_landmarks_get_channels_in_their_order():
    channels = Channels.first(np.array([True, False, True, True]))
    assert len(channels) == 3
    assert channels.landmark_to_channel.tolist() == [0, NONE, 1, 2]
    assert channels.names.tolist() == [0, 2, 3]
    assert channels.flip_map.tolist() == [NONE] * 3


def test_two_merges_map_landmarks_to_the_remaining_channels():
    first = Channels.first(np.array([True, False, True, True, True]))  # named 0, 2, 3, 4
    second, stay = first.merged(np.array([0, 1, 1, 3]), [Merged(2, 1, 0.8)])
    assert stay.tolist() == [0, 1, 3]
    assert second.landmark_to_channel.tolist() == [0, NONE, 1, 1, 2]
    assert second.names.tolist() == [0, 2, 4]
    third, stay = second.merged(np.array([0, 2, 2]), [Merged(1, 2, 0.9)])
    assert stay.tolist() == [0, 2]
    assert third.landmark_to_channel.tolist() == [0, NONE, 1, 1, 1]
    assert third.names.tolist() == [0, 4]
    assert third.history == (Merged(3, 2, 0.8), Merged(2, 4, 0.9))  # by the landmarks that channels began as
    back = Channels.from_dict(third.to_dict())
    assert back.history == third.history
    for name in ("landmark_to_channel", "names", "flip_map"):
        np.testing.assert_array_equal(getattr(back, name), getattr(third, name))


def learner(channels: int) -> Learner:
    rng = np.random.default_rng(0)
    identity = np.tile(np.arange(channels, dtype=np.int32), (4, 1))
    xy = rng.uniform(4, 60, (4, channels, 2)).astype(np.float32)
    labels = Labels(xy, identity, identity, np.ones((4, channels), bool))
    placement = Placement.choose(ComputeConfig(precision="fp32"), torch.device("cpu"))
    return Learner(LandmarkObjective(CONFIG, channels), labels, Schedule(0, 100, ()), placement, (0, 2, 0))


def test_a_head_with_fewer_channels_keeps_weights_and_optimiser_state():
    subject = learner(5)
    rng = np.random.default_rng(1)
    views = Views(
        rng.integers(0, 255, (4, 64, 64, 3), dtype=np.uint8), np.arange(4), np.zeros(4, bool),
        np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (4, 1, 1)), np.tile(IDENTITY_SHIFT, (4, 1, 1, 1)),
    )  # fmt: skip
    for iteration in range(3):
        subject.step(iteration, views)
    kept = keep_channels(subject.state(), np.array([1, 4]))
    before, after = load_weights(subject.state()), load_weights(kept)
    for name, value in before.items():
        expected = value[[1, 4]] if name.startswith("landmarks.output.") else value
        torch.testing.assert_close(after[name], expected, rtol=0, atol=0)
    smaller = learner(2)
    smaller.restore(kept)
    # The optimiser's state of the two channels is kept.
    old = torch.load(io.BytesIO(subject.state()), weights_only=True)["optimiser"]["state"]
    new = torch.load(io.BytesIO(smaller.state()), weights_only=True)["optimiser"]["state"]
    last = max(old)
    torch.testing.assert_close(new[last]["square_avg"], old[last]["square_avg"][[1, 4]], rtol=0, atol=0)
    torch.testing.assert_close(new[last - 1]["square_avg"], old[last - 1]["square_avg"][[1, 4]], rtol=0, atol=0)
    torch.testing.assert_close(new[0]["square_avg"], old[0]["square_avg"], rtol=0, atol=0)
    assert np.isfinite(float(smaller.step(3, views)["loss"]))
