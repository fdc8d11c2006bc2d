"""Stage 1: the negative pairs of an image, and the random cells among them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ray_kplm.config import load_config
from ray_kplm.methods.batch import Points
from ray_kplm.methods.pair_objective import PairObjective

SIDE, DIM, PAIRS = 16, 4, 5_000


def objective(negative_pairs: int = PAIRS) -> PairObjective:
    settings = [
        f"stage1.negative_pairs={negative_pairs}", "stage1.negative_distance=0", "network.depth=2",
        f"network.image_size={4 * SIDE}",
    ]  # fmt: skip
    return PairObjective(load_config(None, settings), across=False)


def points(*counts: int) -> Tensor:
    """Return which points are valid in images with these counts: bool (B, P), with P the largest count."""
    return torch.arange(max(counts)) < torch.tensor(counts)[:, None]


def random_cells(valid: Tensor, negative_pairs: int = PAIRS, seed: int = 0) -> list[list[int]]:
    """Return the cells that every point of an image is paired with."""
    generator = torch.Generator().manual_seed(seed)
    made = objective(negative_pairs)
    point, cell, taken = made._random_pairs(valid, made.random_cells(len(valid), generator))
    found = []
    for image, present in enumerate(valid):
        points, cells = point[image, taken[image]], cell[image, taken[image]]
        of_each = [cells[points == one].tolist() for one in present.nonzero()[:, 0]]
        assert all(one == of_each[0] for one in of_each)
        assert sum(map(len, of_each)) == len(points)
        found.append(of_each[0] if of_each else [])
    return found


@pytest.mark.parametrize("neighbour", [10, 60, 99])
def test_the_negative_pairs_of_an_image_do_not_depend_on_the_other_images(neighbour):
    valid = points(10, neighbour)
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, DIM, SIDE, SIDE, generator=generator)
    xy = (SIDE - 1) * torch.rand(*valid.shape, 2, generator=generator)
    descriptors, identity = torch.rand(*valid.shape, DIM, generator=generator), torch.zeros(valid.shape).long()
    cells = objective().random_cells(2, generator)
    _, both = objective()._negatives(descriptors, maps, Points(xy, valid, identity), cells)
    valid[1] = False
    _, count = objective()._negatives(descriptors, maps, Points(xy, valid, identity), cells)
    assert count.item() == 45 + 10 * 495  # 4,995
    assert PAIRS - neighbour < both.item() - count.item() <= PAIRS


@pytest.mark.parametrize(
    ("count", "cells"),
    [
        (0, 0),
        (1, PAIRS),
        (2, 2499),
        (10, 495),
        (60, 53),
        (99, 1),
        (101, 1),
        (120, 1),
    ],  # 101 points have 5,050 pairs among themselves
)
def test_random_cells_fill_up_the_negative_pairs_of_every_image(count, cells):
    assert [len(found) for found in random_cells(points(count, 30, 7))] == [cells, (5_000 - 435) // 30, 711]


def test_a_point_is_paired_with_a_random_cell_even_without_pairs_to_fill():
    assert [len(found) for found in random_cells(points(3, 1, 0), negative_pairs=0)] == [1, 1, 0]


def test_points_that_are_not_valid_are_in_no_pair():
    valid = torch.tensor([[False, True, False, True], [False] * 4])
    assert [len(found) for found in random_cells(valid, negative_pairs=61)] == [30, 0]


def test_the_cells_of_an_image_do_not_depend_on_the_other_images():
    few, many = random_cells(points(10, 10, 10)), random_cells(points(99, 10, 1))
    assert few[1] == many[1]
    assert few[0][:1] == many[0]
    assert few[2] == many[2][: len(few[2])]
    assert few[0] != few[1] != random_cells(points(10, 10, 10), seed=1)[1]


def test_random_cells_cover_the_heatmap():
    hits = torch.bincount(torch.tensor(random_cells(points(1))[0]), minlength=SIDE**2)
    assert len(hits) == SIDE**2
    assert hits.min() > 3  # 5,000 of 256 cells are 19.5 a cell
    assert hits.max() < 45
