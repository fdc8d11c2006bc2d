"""Stage 2: channels of points, averaging with the mirror image, the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from ray_kplm.config import Config, NetworkConfig, load_config
from ray_kplm.imaging import coordinates
from ray_kplm.methods.batch import Points
from ray_kplm.methods.landmark_objective import LandmarkObjective, by_channel, mirrored_mean
from ray_kplm.methods.pair_objective import JointObjective, PairObjective
from ray_kplm.network import heatmaps
from ray_kplm.schemas import NONE

FLIP = torch.tensor([1, 0, 2, 4, 3])
SIDE = 32


def rendered(xy: torch.Tensor) -> torch.Tensor:
    return heatmaps.render(xy, torch.ones(xy.shape[:2], dtype=xy.dtype), SIDE, 1.0)


def test_points_go_to_the_channel_of_their_identity():
    xy = torch.arange(12.0).reshape(2, 3, 2)
    identity = torch.tensor([[4, 0, NONE], [1, 2, 3]])
    sorted_xy, labelled = by_channel(xy, identity, 5)
    assert labelled.tolist() == [[True, False, False, False, True], [False, True, True, True, False]]
    torch.testing.assert_close(sorted_xy[0, [4, 0]], xy[0, [0, 1]])
    torch.testing.assert_close(sorted_xy[1, [1, 2, 3]], xy[1])


def test_a_flip_permutes_channels():
    xy = 10 * torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(0))
    flipped_xy, labelled = by_channel(xy, FLIP[None], 5)
    assert labelled.all()
    for landmark, partner in enumerate(FLIP.tolist()):
        torch.testing.assert_close(flipped_xy[0, partner], xy[0, landmark])


def test_a_channel_claimed_twice_is_left_out():
    xy = torch.ones(1, 4, 2)
    _, labelled = by_channel(xy, torch.tensor([[2, 2, 1, NONE]]), 3)
    assert labelled.tolist() == [[False, True, False]]
    _, labelled = by_channel(xy, torch.tensor([[2, 2, 2, 0]]), 3)
    assert labelled.tolist() == [[True, False, False]]


def test_averaging_with_the_mirror_image_of_an_equivariant_network_moves_no_peak():
    xy = 3 + (SIDE - 7) * torch.rand(6, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # In the mirror image the landmark FLIP[k] stands at the mirrored place of landmark k.
    mirrored_xy = torch.empty_like(xy)
    mirrored_xy[:, FLIP] = xy.new_tensor(coordinates.mirrored(xy.numpy(), SIDE))
    plain = rendered(xy)
    mean = mirrored_mean(plain, rendered(mirrored_xy), FLIP)
    torch.testing.assert_close(mean, plain, rtol=0, atol=1e-12)
    for found, expected in zip(heatmaps.decode(mean, 1.0), heatmaps.decode(plain, 1.0), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_averaging_follows_a_flip_map_that_is_no_involution():
    flip = torch.tensor([1, 2, 2])
    mirrored = torch.zeros(1, 3, 4, 4)
    mirrored[0, :, 1, 0] = torch.tensor([10.0, 20.0, 30.0])
    mean = mirrored_mean(torch.zeros(1, 3, 4, 4), mirrored, flip)
    assert mean[0, :, 1, 3].tolist() == [10.0, 15.0, 15.0]
    assert mean.sum() == 40


def test_a_landmark_without_a_partner_is_not_averaged():
    plain, mirrored = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    mean = mirrored_mean(plain, mirrored, torch.tensor([1, 0, NONE]))
    torch.testing.assert_close(mean[:, 2], plain[:, 2])
    torch.testing.assert_close(mean[:, 0], (plain[:, 0] + mirrored[:, 1].flip(-1)) / 2)


def test_averaging_halves_the_distance_of_two_peaks():
    xy = torch.tensor([[[10.0, 12.0]]])
    shifted = xy + torch.tensor([0.6, 0.0])
    mirrored = rendered(xy.new_tensor(coordinates.mirrored(shifted.numpy(), SIDE)))
    found, _ = heatmaps.decode(mirrored_mean(rendered(xy), mirrored, torch.tensor([0])), 1.0)
    torch.testing.assert_close(found, xy + torch.tensor([0.3, 0.0]), rtol=0, atol=0.05)


class Maps(nn.Module):
    def __init__(self, batch: int, landmarks: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.zeros(batch, landmarks, SIDE, SIDE))

    def forward(self, image):
        return self.maps


def objective(landmarks: int) -> LandmarkObjective:
    network = NetworkConfig(image_size=4 * SIDE, width=16, depth=2)
    return LandmarkObjective(replace(Config(), network=network), landmarks)


def test_the_loss_trains_labelled_channels_only():
    network, xy = Maps(2, 3), torch.tensor([[[8.0, 8.0], [20.0, 9.0]], [[4.0, 20.0], [0.0, 0.0]]])
    identity = torch.tensor([[2, 0], [1, NONE]])
    loss, parts = objective(3).loss(network, torch.zeros(2, 3, 1, 1), Points(xy, identity != NONE, identity), None)
    loss.backward()
    target = heatmaps.render(xy, torch.ones(2, 2), SIDE, 0.75)
    expected = torch.stack([target[0, 0], target[0, 1], target[1, 0]]).square().mean()
    assert loss.item() == pytest.approx(expected.item())
    assert parts["labelled"].item() == 1.5
    trained = network.maps.grad.abs().amax((2, 3)) > 0
    assert trained.tolist() == [[True, False, True], [False, True, False]]
    # The gradient at the channel's own point pulls up.
    assert network.maps.grad[0, 2, 8, 8] == network.maps.grad[0, 2].min() < 0


def test_the_backbone_has_a_lower_rate_and_all_weights_are_in_a_group():
    made = objective(3)
    network = made.network()
    slow, fast = made.parameter_groups(network)
    assert slow["lr"] == pytest.approx(0.1 * fast["lr"])
    assert fast["lr"] == Config().stage2.learning_rate
    assert {id(p) for g in (slow, fast) for p in g["params"]} == {id(p) for p in network.parameters()}
    assert {id(p) for p in slow["params"]} == {id(p) for p in network.backbone.parameters()}
    assert network.landmarks.output.out_channels == 3


def test_a_backbone_from_scratch_has_the_rate_of_the_head():
    made = LandmarkObjective(objective(3).config, 3, from_scratch=True)
    slow, fast = made.parameter_groups(made.network())
    assert slow["lr"] == fast["lr"] == Config().stage2.learning_rate


def test_a_joint_loss_is_the_sum_of_the_losses_of_pairs_and_of_labelled_channels():
    small = ["network.depth=2", f"network.image_size={4 * SIDE}"]
    settings = load_config(None, ["stage2.joint_weight=3", "stage2.heatmap_sigma=1", "stage1.rounds=1", *small])
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, SIDE, SIDE, generator=generator), torch.randn(2, 4, SIDE, SIDE, generator=generator)
    heads = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    xy = torch.tensor([[[8.0, 8.0], [20.0, 9.0]], [[4.0, 20.0], [11.0, 3.0]]])
    identity, landmark = torch.tensor([[5, 6], [6, NONE]]), torch.tensor([[2, 0], [0, 1]])
    image, valid = torch.zeros(2, 3, 1, 1), torch.ones(2, 2, dtype=torch.bool)

    def total(objective, network, points):
        cells = objective.random_cells(2, torch.Generator().manual_seed(1))
        return objective.loss(network, image, points, cells)

    pairs, _ = total(PairObjective(settings, across=True), lambda _: maps, Points(xy, valid, identity))
    joint = JointObjective(settings, across=True)
    both, parts = total(joint, lambda _: (*maps, heads), Points(xy, valid, identity, landmark))
    target = heatmaps.render(xy, torch.ones(2, 2), SIDE, 1.0)
    squared = [(heads[b, landmark[b, p]] - target[b, p]).square().mean() for b in range(2) for p in range(2)]
    assert parts["landmarks"].item() == pytest.approx(float(sum(squared) / 4), rel=1e-5)
    assert both.item() == pytest.approx(pairs.item() + 3 * parts["landmarks"].item(), rel=1e-5)
    waiting, parts = total(joint, lambda _: (*maps, heads), Points(xy, valid, identity))
    assert parts["landmarks"].item() == 0
    assert waiting.item() == pytest.approx(pairs.item())
