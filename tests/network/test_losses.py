"""Losses against slow loops written from docs/method.md 3 and 4."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ray_kplm.config import Config, NetworkConfig
from ray_kplm.methods.batch import Points
from ray_kplm.methods.pair_objective import PairObjective
from ray_kplm.network import losses
from ray_kplm.schemas import NONE

SIDE, DIM, POINTS = 16, 4, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(**stage1) -> Config:
    base = Config()
    stage = replace(base.stage1, **({"negative_pairs": 60} | stage1))
    return replace(
        base, network=NetworkConfig(image_size=4 * SIDE, width=16, depth=2, descriptor_dim=DIM), stage1=stage
    )


class Maps(nn.Module):
    """In place of a network: its maps are its parameters."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(images, SIDE, SIDE, generator=generator(1)))
        self.map = nn.Parameter(0.3 * torch.randn(images, DIM, SIDE, SIDE, generator=generator(2)))

    def forward(self, image):
        return self.logits, self.map


def scene(images: int = 4):
    """Points with gaps: valid points without identity, and masked ones."""
    xy = (SIDE - 1) * torch.rand(images, POINTS, 2, generator=generator(3))
    identity = torch.stack([torch.randperm(POINTS, generator=generator(10 + i)) for i in range(images)])
    valid = torch.ones(images, POINTS, dtype=torch.bool)
    valid[:, -1] = False
    identity[~valid] = NONE
    identity[0, 0] = NONE
    return xy, valid, identity


def drawn_cells(settings: Config, images: int) -> torch.Tensor:
    found = PairObjective(settings, across=False).random_cells(images, generator(7))
    assert found is not None
    return found


def loss_of(settings: Config, network: Maps, xy, valid, identity):
    return PairObjective(settings, across=False).loss(
        network, torch.zeros(len(xy), 3, 1, 1), Points(xy, valid, identity), drawn_cells(settings, len(xy))
    )


def slow_loss(settings: Config, network: Maps, xy, valid, identity) -> tuple[float, float, float]:
    """docs/method.md 3 with loops: total, detector, descriptor."""
    stage = settings.stage1
    random = PairObjective(settings, across=False)._random_pairs(valid, drawn_cells(settings, len(xy)))
    maps, probability = network.map.tolist(), network.logits.sigmoid().tolist()

    def descriptor(image, x, y):
        return [channel[round(y)][round(x)] for channel in maps[image]]

    positive, negative = [], []
    for image in range(0, len(xy), 2):
        for p, q in itertools.product(range(POINTS), repeat=2):
            mine, theirs = identity[image, p], identity[image + 1, q]
            if mine == theirs and mine != NONE:
                a, b = descriptor(image, *xy[image, p].tolist()), descriptor(image + 1, *xy[image + 1, q].tolist())
                positive.append(math.dist(a, b) ** 2)
    for image in range(len(xy)):
        own = [xy[image, p].tolist() for p in range(POINTS) if valid[image, p]]
        background = [
            (xy[image, point].tolist(), (cell % SIDE, cell // SIDE))
            for point, cell, taken in zip(*(values[image].tolist() for values in random), strict=True)
            if taken
        ]
        pairs = [*itertools.combinations(own, 2), *background]
        for a, b in pairs:
            if math.dist(a, b) >= stage.negative_distance * SIDE:
                gap = math.dist(descriptor(image, *a), descriptor(image, *b))
                negative.append(max(0.0, stage.margin - gap) ** 2)
    if stage.pair_weighting == "all":
        descriptor_loss = sum(positive + negative) / len(positive + negative)
    else:
        descriptor_loss = sum(positive) / len(positive) + sum(negative) / len(negative)

    errors = []
    for image in range(len(xy)):
        marked = {(round(x), round(y)) for (x, y), v in zip(xy[image].tolist(), valid[image], strict=True) if v}
        error = [
            (probability[image][y][x] - ((x, y) in marked)) ** 2 for x, y in itertools.product(range(SIDE), repeat=2)
        ]
        errors.append(sum(error) / len(error))
    detector = sum(errors[i] + errors[i + 1] for i in range(0, len(xy), 2)) / (len(xy) / 2)
    return 10 * descriptor_loss + detector, detector, descriptor_loss


@pytest.mark.parametrize("pair_weighting", ["all", "balanced"])
def test_the_pair_objective_is_that_of_docs_method_3(pair_weighting):
    settings, network = config(pair_weighting=pair_weighting), Maps(4)
    expected = slow_loss(settings, network, *scene())
    loss, parts = loss_of(settings, network, *scene())
    found = [loss.item(), parts["detector"].item(), parts["descriptor"].item()]
    assert found == pytest.approx(expected, rel=1e-4)
    assert parts["loss"] is loss


def test_parts_of_the_loss_are_means_and_counts():
    _, parts = loss_of(config(), Maps(4), *scene())
    _, _, identity = scene()
    shared = [
        len((set(a.tolist()) & set(b.tolist())) - {NONE}) for a, b in zip(identity[::2], identity[1::2], strict=True)
    ]
    assert parts["positives_per_pair"].item() == sum(shared) / 2
    # One positive counts as much as one negative in `all`, far more in `balanced`.
    _, balanced = loss_of(config(pair_weighting="balanced"), Maps(4), *scene())
    assert balanced["descriptor"].item() == pytest.approx((parts["positive"] + parts["negative"]).item())
    assert parts["descriptor"].item() < balanced["descriptor"].item()


@pytest.mark.parametrize("pair_weighting", ["all", "balanced"])
def test_masked_points_have_no_influence(pair_weighting):
    settings = config(pair_weighting=pair_weighting, heatmap_sigma=0.75)
    xy, valid, identity = scene()
    values, gradients = [], []
    for moved in (xy, torch.where(valid[..., None], xy, SIDE - 1 - xy), torch.where(valid[..., None], xy, 500.0)):
        network = Maps(4)
        loss, _ = loss_of(settings, network, moved, valid, identity)
        loss.backward()
        values.append(loss.item())
        gradients.append(network.map.grad)
    assert values[0] == values[1] == values[2]
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


@pytest.mark.parametrize("pair_weighting", ["all", "balanced"])
@pytest.mark.parametrize("case", ["no point", "no correspondence", "no negative"])
def test_empty_sets_have_zero_loss_and_a_finite_gradient(pair_weighting, case):
    settings = config(pair_weighting=pair_weighting, negative_distance=2.0 if case == "no negative" else 0.09)
    xy, valid, identity = scene()
    if case == "no point":
        valid[:] = False
    if case != "no negative":
        identity[:] = NONE
    network = Maps(4)
    loss, parts = loss_of(settings, network, xy, valid, identity)
    loss.backward()
    assert network.map.grad.isfinite().all()
    assert network.logits.grad.isfinite().all()
    assert (parts["positive"].item() == 0) == (case != "no negative")
    assert (parts["negative"].item() == 0) == (case != "no correspondence")
    if case == "no point":
        assert parts["descriptor"].item() == 0
        assert not network.map.grad.any()


def test_equal_descriptors_have_a_finite_gradient():
    network = Maps(4)
    nn.init.ones_(network.map)
    loss, parts = loss_of(config(), network, *scene())
    loss.backward()
    assert network.map.grad.isfinite().all()
    assert parts["negative"].item() == pytest.approx(0.8**2, rel=1e-3)
    assert parts["positive"].item() == 0


def round_terms(network: Maps, **stage1):
    """The parts of a round's loss, and what the loops below compare."""
    xy, valid, identity = scene()
    negatives = stage1.pop("negatives", "same_image")
    objective = PairObjective(config(**stage1), across=True, negatives=negatives)
    drawn = drawn_cells(objective.config, 4)
    _, parts = objective.loss(network, torch.zeros(4, 3, 1, 1), Points(xy, valid, identity), drawn)
    cells = xy.round().long().clamp(0, SIDE - 1)
    points = [[network.map[b, :, y, x].tolist() for x, y in cells[b].tolist()] for b in range(4)]
    return parts, points, valid, identity


@pytest.mark.parametrize("negatives", ["same_image", "different_cluster"])
def test_equivariance_pairs_a_point_with_itself_whatever_its_cluster(negatives):
    parts, points, valid, _ = round_terms(
        Maps(4), correspondence="equivariance", positives="batch", negatives=negatives
    )
    own = [(b, p) for b in (0, 2) for p in range(POINTS) if valid[b, p] and valid[b + 1, p]]
    expected = sum(math.dist(points[b][p], points[b + 1][p]) ** 2 for b, p in own) / len(own)
    assert parts["positive"].item() == pytest.approx(expected, rel=1e-4)
    assert parts["positives_per_pair"].item() == len(own) / 2


@pytest.mark.parametrize("correspondence", ["clustering", "equivariance"])
def test_negatives_of_chapter_5_are_all_points_of_other_clusters(correspondence):
    parts, points, _, identity = round_terms(
        Maps(4), negatives="different_cluster", correspondence=correspondence, margin=1.5
    )
    known = [(b, p) for b in range(4) for p in range(POINTS) if identity[b, p] != NONE]
    pairs = [(m, n) for m, n in itertools.combinations(known, 2) if identity[m] != identity[n]]
    gaps = [math.dist(points[a][p], points[b][q]) for (a, p), (b, q) in pairs]
    assert parts["negative"].item() == pytest.approx(sum(max(0.0, 1.5 - g) ** 2 for g in gaps) / len(gaps), rel=1e-3)


def test_positives_of_a_pair_have_equal_identities():
    a, b = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]]), torch.tensor([[[3.0, 4.0], [1.0, 2.0]]])
    total, count = losses.pair_positives(a, b, torch.tensor([[7, 2, NONE]]), torch.tensor([[2, NONE]]))
    assert (total.item(), count.item()) == (3**2 + 2**2, 1)


@pytest.mark.parametrize("kind", ["positives", "negatives"])
def test_pairs_of_a_batch_count_once_and_pull_on_both_their_points(kind):
    descriptors = torch.rand(3, POINTS, DIM, generator=generator(4)).requires_grad_()
    identity = torch.randint(NONE, 4, (3, POINTS), generator=generator(5))
    flat, names = descriptors.flatten(0, 1), identity.flatten().tolist()
    squared = []
    for m, n in itertools.combinations(range(3 * POINTS), 2):
        same = names[m] == names[n]
        chosen = (same and m // POINTS != n // POINTS) if kind == "positives" else not same
        if chosen and NONE not in (names[m], names[n]):
            squared.append(((flat[m] - flat[n]) ** 2).sum())
    terms = torch.stack(squared)
    expected = terms.sum() if kind == "positives" else losses.hinge(terms, 0.8).sum()
    if kind == "positives":
        total, count = losses.batch_positives(descriptors, identity)
    else:
        total, count = losses.different_cluster_negatives(descriptors, identity, margin=0.8)
    assert count.item() == len(terms) > 10
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=0)
    gradients = [torch.autograd.grad(value, descriptors)[0] for value in (total, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_squared_distances_never_fall_below_zero():
    a = 100 * torch.randn(2, 9, 32, generator=generator())
    squared = losses.squared_distances(a, a)
    assert squared.min() >= 0
    torch.testing.assert_close(squared, torch.cdist(a, a) ** 2, rtol=1e-3, atol=0.5)


def test_hinge_is_applied_to_the_distance():
    squared = torch.tensor([0.25, 0.64, 4.0, 0.0])
    expected = torch.tensor([(0.8 - 0.5) ** 2, 0.0, 0.0, 0.64])  # Eqn 6.3's variant would give (0.8 - 0.25)^2 first
    torch.testing.assert_close(losses.hinge(squared, 0.8), expected, rtol=0, atol=2e-4)


def test_negatives_within_an_image_count_once_and_leave_out_close_ones():
    # Points at 0, 3 and 9 on a line (distances 3, 6, 9), one masked.
    xy = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [9.0, 0.0], [5.0, 5.0]]])
    valid = torch.tensor([[True, True, True, False]])
    descriptors = torch.tensor([[[0.0], [0.1], [0.3], [0.0]]])
    loss, count = losses.same_image_negatives(descriptors, xy, valid, margin=0.8, minimum_distance=6.0)
    assert count.item() == 2  # (0, 9) and (3, 9), which are just far enough
    assert loss.item() == pytest.approx((0.8 - 0.3) ** 2 + (0.8 - 0.2) ** 2, rel=1e-3)
    # Cells at (12, 0) and (5, 15) of a map, the second with one point only, in a pair that is not taken.
    maps = torch.zeros(1, 1, SIDE, SIDE)
    maps[0, 0, 0, 12], maps[0, 0, 15, 5] = 0.7, 0.5
    point, cell = torch.tensor([[0, 1, 2, 0]]), torch.tensor([[12, 12, 12, 15 * SIDE + 5]])
    taken = torch.tensor([[True, True, True, False]])
    loss, count = losses.background_negatives(
        descriptors, xy, maps, point, cell, taken, margin=0.8, minimum_distance=6.0
    )
    assert count.item() == 2  # from 0 and from 3, not from 9
    assert loss.item() == pytest.approx((0.8 - 0.7) ** 2 + (0.8 - 0.6) ** 2, rel=1e-3)


def test_masked_mse_uses_labelled_channels_alone():
    heatmaps, targets = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    heatmaps[0, 0], heatmaps[0, 1], heatmaps[1, 2] = 2.0, 100.0, 1.0
    labelled = torch.tensor([[True, False, False], [False, True, True]])
    assert losses.masked_mse(heatmaps, targets, labelled).item() == pytest.approx((4 + 0 + 1) / 3)


def test_masked_mse_of_nothing_is_zero():
    heatmaps = torch.ones(2, 3, 4, 4, requires_grad=True)
    loss = losses.masked_mse(heatmaps, torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not heatmaps.grad.any()


def test_detector_loss_is_the_mean_squared_error():
    probability, target = torch.full((2, 4, 4), 0.5), torch.zeros(2, 4, 4)
    target[0] = 1
    probability[1] = 0.25
    assert losses.detector_loss(probability, target).item() == pytest.approx((0.25 + 0.0625) / 2)
