"""Points to heatmaps and back."""

from __future__ import annotations

import pytest
import torch

from ray_kplm.network import heatmaps

SIDE = 32


def points(batch: int, count: int, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.rand(batch, count, 2, generator=torch.Generator().manual_seed(0))


def valid(xy: torch.Tensor) -> torch.Tensor:
    return torch.ones(xy.shape[:2])


SIGMAS = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_decode_inverts_render(sigma):
    xy = points(4, 25, 3, SIDE - 4)
    rendered = heatmaps.render(xy, valid(xy), SIDE, sigma)
    found, confidence = heatmaps.decode(rendered, sigma)
    assert (found - xy).abs().max() < 0.06  # a whole cell would be off by up to 0.5, a quarter cell by 0.25
    torch.testing.assert_close(confidence, rendered.amax((2, 3)))
    assert confidence.min() > 0.3


def slope(found: torch.Tensor, true: torch.Tensor) -> float:
    """Of the line through decoded offsets over true ones: below 1 points are drawn to the centres of cells."""
    return float(((true - true.mean()) * (found - found.mean())).sum() / ((true - true.mean()) ** 2).sum())


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("height", [1.0, 0.02])
@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("first", [8, 0], ids=["inside", "border"])
def test_decoded_offsets_have_the_slope_of_the_true_ones(sigma, height, noise, first):
    """Peaks in columns `first` to `first` + 2: the border cuts what is to the left of them. Noise: share of the peak."""
    random = torch.Generator().manual_seed(1)
    columns = torch.randint(first, first + 3, (16, 64), generator=random)
    cell = torch.stack([columns, torch.randint(8, 24, (16, 64), generator=random)], dim=-1)
    offset = torch.rand(16, 64, 2, generator=random) - 0.5
    offset[..., 0] = torch.where(
        columns == 0, offset[..., 0].abs(), offset[..., 0]
    )  # the position is unknown half a cell outside
    rendered = heatmaps.render(cell + offset, torch.ones(16, 64), SIDE, sigma)
    maps = height * (rendered + noise * torch.randn(rendered.shape, generator=random))
    found, _ = heatmaps.decode(maps, sigma)
    mirrored, _ = heatmaps.decode(maps.flip(-1), sigma)
    mirrored[..., 0] = SIDE - 1 - mirrored[..., 0]
    for decoded in (found, mirrored):
        for axis in (0, 1):
            assert slope((decoded - cell)[..., axis], offset[..., axis]) == pytest.approx(1, abs=0.03)


def test_decode_returns_the_mean_of_two_close_places():
    """Where a network cannot tell two neighbouring places apart its heatmap has both: between them the error is least."""
    xy = torch.tensor([[[12.0, 16.0]], [[15.0, 16.0]]])
    one, other = heatmaps.render(xy, torch.ones(2, 1), SIDE, 0.75)
    found, confidence = heatmaps.decode((0.52 * one + 0.48 * other)[None], 0.75)
    assert found[0, 0, 0].item() == pytest.approx(13.4, abs=0.15)
    assert found[0, 0, 1].item() == pytest.approx(16.0, abs=1e-4)
    assert confidence.item() == pytest.approx(0.52, abs=0.01)


def test_decode_ignores_a_second_place_outside_the_window():
    xy = torch.tensor([[[6.0, 16.0]], [[25.0, 16.0]]])
    one, other = heatmaps.render(xy, torch.ones(2, 1), SIDE, 0.75)
    found, _ = heatmaps.decode((0.52 * one + 0.48 * other)[None], 0.75)
    torch.testing.assert_close(found, xy[:1], rtol=0, atol=1e-4)


def test_single_cells_decode_to_their_centres():
    xy = points(1, 25, 3, SIDE - 4)
    found, _ = heatmaps.decode(heatmaps.render(xy, valid(xy), SIDE, 0.0), 0.0)
    torch.testing.assert_close(found, xy.round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_heatmaps_smaller_than_the_window_are_decoded(side):
    xy = torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(2)) * (side - 1)
    found, _ = heatmaps.decode(heatmaps.render(xy, valid(xy), side, 0.75), 0.75)
    assert found.isfinite().all()
    assert (found - xy).abs().max() <= 0.51


def test_decode_does_not_depend_on_the_height_or_on_a_negative_ground():
    xy = points(1, 25, 3, SIDE - 4)
    rendered = heatmaps.render(xy, valid(xy), SIDE, 1.0)
    found, _ = heatmaps.decode(rendered, 1.0)
    lowered = torch.where(rendered < 0.001, torch.tensor(-0.3), 0.01 * rendered)
    torch.testing.assert_close(heatmaps.decode(lowered, 1.0)[0], found, rtol=0, atol=0.02)


def test_decode_ignores_negative_values():
    heatmap = torch.zeros(1, 1, SIDE, SIDE)
    heatmap[0, 0, 5, 5:8] = torch.tensor([1.0, -0.5, -0.5])
    torch.testing.assert_close(heatmaps.decode(heatmap, 0.75)[0], torch.tensor([[[5.0, 5.0]]]))


def test_peaks_find_points_to_a_quarter_cell():
    xy = points(100, 1, 3, SIDE - 4)
    found = heatmaps.peaks(heatmaps.render(xy, valid(xy), SIDE, 1.0)[:, 0], 0.3, 2, 10)
    assert found.xy_BN2.shape == (100, 1, 2)
    assert found.valid_BN.all()
    error = found.xy_BN2 - xy
    assert error.abs().max() <= 0.2501
    assert error.abs().mean() == pytest.approx(0.125, abs=0.02)  # uniform in a quarter cell


def test_a_gaussian_is_sampled_about_the_exact_point():
    xy = torch.tensor([[[10.25, 20.5]]])
    (heatmap,) = heatmaps.render(xy, valid(xy), SIDE, 2.0)[0]
    for x, y in ((10, 20), (12, 19), (8, 24)):
        expected = torch.exp(torch.tensor(-((x - 10.25) ** 2 + (y - 20.5) ** 2) / 8))
        torch.testing.assert_close(heatmap[y, x], expected)
    assert heatmap[20, 17] == 0  # beyond 3 sigma
    assert heatmap[20, 16] > 0


def test_a_single_cell_is_the_nearest():
    xy = torch.tensor([[[4.4, 7.6], [0.0, SIDE - 0.6], [-0.6, 5.0], [3.0, SIDE - 0.4]]])
    rendered = heatmaps.render(xy, valid(xy), SIDE, 0.0)[0]
    expected = torch.zeros(4, SIDE, SIDE)
    expected[0, 8, 4] = expected[1, SIDE - 1, 0] = 1
    torch.testing.assert_close(rendered, expected)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_invalid_points_are_not_rendered(sigma):
    xy = torch.full((2, 3, 2), 9.0)
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    rendered = heatmaps.render(xy, mask, SIDE, sigma)
    assert rendered.shape == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(rendered.amax((2, 3)), mask)


def test_inside_accepts_points_in_a_cell():
    xy = torch.tensor([[-0.4, 0.0], [-0.6, 0.0], [7.4, 7.4], [7.4, 7.6], [3.0, 4.0]])
    assert heatmaps.inside(xy, 8).tolist() == [True, False, True, False, True]


def cells(*values: tuple[int, int, float], side: int = 16) -> torch.Tensor:
    heatmap = torch.zeros(1, side, side)
    for x, y, value in values:
        heatmap[0, y, x] = value
    return heatmap


def test_peaks_are_above_the_threshold_strongest_first():
    heatmap = cells((2, 3, 0.5), (10, 12, 0.9), (12, 2, 0.3), (6, 8, 0.2))
    found = heatmaps.peaks(heatmap, 0.2, 2, 10)
    torch.testing.assert_close(found.xy_BN2[0], torch.tensor([[10.0, 12.0], [2.0, 3.0], [12.0, 2.0]]))
    torch.testing.assert_close(found.score_BN[0], torch.tensor([0.9, 0.5, 0.3]))
    limited = heatmaps.peaks(heatmap, 0.2, 2, 2)
    torch.testing.assert_close(limited.xy_BN2, found.xy_BN2[:, :2])


@pytest.mark.parametrize(("apart", "radius", "expected"), [(2, 2, 1), (3, 2, 2), (2, 1, 2), (1, 1, 1), (3, 3, 1)])
def test_a_peak_is_the_maximum_of_its_box(apart, radius, expected):
    for dx, dy in ((apart, 0), (0, apart), (apart, apart), (-apart, apart)):
        found = heatmaps.peaks(cells((7, 7, 0.9), (7 + dx, 7 + dy, 0.8)), 0.1, radius, 10)
        assert int(found.valid_BN.sum()) == expected


def test_a_batch_is_padded_to_the_most_peaks():
    heatmap = torch.cat([cells((2, 3, 0.5)), cells(), cells((4, 4, 0.4), (12, 4, 0.8))])
    found = heatmaps.peaks(heatmap, 0.1, 2, 10)
    assert found.valid_BN.tolist() == [[True, False], [False, False], [True, True]]
    assert found.xy_BN2.shape == (3, 2, 2)
    torch.testing.assert_close(found.xy_BN2[2], torch.tensor([[12.0, 4.0], [4.0, 4.0]]))


def test_heatmaps_without_peaks_have_a_width_of_zero():
    found = heatmaps.peaks(torch.zeros(3, 8, 8), 0.1, 2, 10)
    assert found.xy_BN2.shape == (3, 0, 2)
    assert found.score_BN.shape == found.valid_BN.shape == (3, 0)


def test_peaks_move_toward_the_larger_neighbour_but_not_at_the_border():
    heatmap = cells((5, 5, 0.9), (6, 5, 0.3), (4, 5, 0.2), (5, 4, 0.1), (0, 12, 0.8), (1, 12, 0.5), (0, 13, 0.5))
    heatmap[0, 0, 15] = 0.7
    heatmap[0, 0, 14] = 0.6
    found = heatmaps.peaks(heatmap, 0.65, 2, 10)
    torch.testing.assert_close(found.xy_BN2[0], torch.tensor([[5.25, 4.75], [0.0, 12.25], [15.0, 0.0]]))


@pytest.mark.parametrize("corner", [(0.0, 0.0), (SIDE - 1.0, 0.0), (0.0, SIDE - 1.0), (SIDE - 1.0, SIDE - 1.0)])
def test_decode_at_the_border_is_not_biased_inward(corner):
    xy = torch.tensor([[corner]])
    found, confidence = heatmaps.decode(heatmaps.render(xy, valid(xy), SIDE, 1.0), 1.0)
    torch.testing.assert_close(found, xy, rtol=0, atol=0.03)
    assert confidence.item() == 1


def test_decode_near_the_border_is_as_exact_as_elsewhere():
    along = torch.arange(0, SIDE - 1, 0.3)
    for column in (0.0, 1.0, SIDE - 2.0, SIDE - 1.0):
        xy = torch.stack([torch.full_like(along, column), along], dim=-1)[None]
        found, _ = heatmaps.decode(heatmaps.render(xy, valid(xy), SIDE, 1.0), 1.0)
        assert (found - xy).abs().max() < 0.07


def test_decode_of_an_empty_map_is_finite():
    found, confidence = heatmaps.decode(torch.zeros(1, 2, 8, 8), 0.75)
    assert found.isfinite().all()
    assert (confidence == 0).all()


def ramp(batch: int = 2) -> torch.Tensor:
    """Channels x, y and 3x - y + 5 of the cell."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return torch.stack([x, y, 3 * x - y + 5]).expand(batch, 3, 16, 16)


def test_sampling_a_ramp_returns_the_position():
    xy = points(2, 50, 0, 15)
    read = heatmaps.sample(ramp(), xy)
    assert read.shape == (2, 50, 3)
    torch.testing.assert_close(read[..., :2], xy, rtol=0, atol=1e-4)
    torch.testing.assert_close(read[..., 2], 3 * xy[..., 0] - xy[..., 1] + 5, rtol=0, atol=1e-4)


def test_sample_repeats_the_border_and_keeps_images_apart():
    read = heatmaps.sample(ramp() * torch.tensor([1.0, 10.0])[:, None, None, None], torch.tensor([[[-3.0, 7.0]]] * 2))
    torch.testing.assert_close(read[0, 0, :2], torch.tensor([0.0, 7.0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(read[1, 0, :2], torch.tensor([0.0, 70.0]), rtol=0, atol=1e-3)


def test_read_cells_reads_the_nearest_cell():
    xy = torch.tensor([[[4.4, 7.6], [-9.0, 3.0], [15.4, 99.0]], [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    read = heatmaps.read_cells(ramp(), xy)
    expected = torch.tensor([[[4.0, 8.0], [0.0, 3.0], [15.0, 15.0]], [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(read[..., :2], expected)
    torch.testing.assert_close(read[..., 2], 3 * expected[..., 0] - expected[..., 1] + 5)


def test_single_cell_targets_and_read_cells_mean_the_same_cell():
    xy = points(1, 40, -0.49, SIDE - 0.51)
    rendered = heatmaps.render(xy, valid(xy), SIDE, 0.0)
    read = heatmaps.read_cells(rendered, xy)[0]
    torch.testing.assert_close(read.diagonal(), torch.ones(40))


def test_sharpness_is_how_far_a_heatmap_falls_around_a_point():
    xy = points(2, 6, 4, SIDE - 5).round()
    alone = heatmaps.render(xy, valid(xy), SIDE, 0).flatten(0, 1)
    torch.testing.assert_close(heatmaps.sharpness(alone, xy.flatten(0, 1)[:, None], 0.0), torch.ones(12, 1))
    assert heatmaps.sharpness(torch.full((1, SIDE, SIDE), 0.7), xy[:1], 0.75).abs().max() < 1e-5
    assert heatmaps.sharpness(torch.full((1, SIDE, SIDE), -0.7), xy[:1], 0.75).abs().max() == 0
    sigmas = [
        heatmaps.sharpness(heatmaps.render(xy, valid(xy), SIDE, s).flatten(0, 1), xy.flatten(0, 1)[:, None], 0.75)
        .mean()
        .item()
        for s in (0.75, 1.25, 2.5)
    ]
    assert sigmas == sorted(sigmas, reverse=True)
    # A Gaussian falls to exp(-r^2 / 2 s^2) at radius r; reading between its cells takes a little of that.
    assert sigmas[2] == pytest.approx(1 - 2.71828 ** -(4 / (2 * 2.5**2)), abs=0.03)


def test_sharpness_does_not_depend_on_the_height_or_on_a_negative_ground():
    xy = points(1, 6, 4, SIDE - 5)
    rendered = heatmaps.render(xy, valid(xy), SIDE, 1.0).flatten(0, 1)
    at = xy.flatten(0, 1)[:, None]
    found = heatmaps.sharpness(rendered, at, 1.0)
    torch.testing.assert_close(heatmaps.sharpness(0.01 * rendered, at, 1.0), found)
    grounded = torch.where(rendered == 0, torch.tensor(-0.3), rendered)
    assert (heatmaps.sharpness(grounded, at, 1.0) >= found - 1e-6).all()
