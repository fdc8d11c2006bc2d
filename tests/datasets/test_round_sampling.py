"""Images of a round: every image is drawn once before any is drawn again, for any number of parts."""

import numpy as np
import pytest

from ray_kplm.datasets.round_sampling import draw_round, full_selection

PARTS, ROWS = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"], [50, 7, 43]


def ids(selection):
    starts = dict(zip(PARTS, np.cumsum([0, *ROWS]), strict=False))
    pairs = zip(selection.parts, selection.rows, strict=True)
    return np.concatenate([starts[part] + rows for part, rows in pairs])


def drawn(sizes, seed=0):
    """Images of consecutive rounds of some sizes."""
    before = np.cumsum([0, *sizes])
    return [
        ids(draw_round(PARTS, ROWS, before=int(b), count=n, seed=seed)) for b, n in zip(before, sizes, strict=False)
    ]


def test_a_round_at_least_as_large_as_the_dataset_has_all_images():
    assert ids(draw_round(PARTS, ROWS, before=300, count=100, seed=0)).tolist() == list(range(100))
    assert draw_round(PARTS, ROWS, before=0, count=1000, seed=0).images == 100


def test_rounds_do_not_repeat_an_image_before_all_were_drawn():
    rounds = drawn([30] * 10)
    assert all(len(r) <= 30 for r in rounds)
    seen = np.bincount(np.concatenate(rounds[:3]), minlength=100)
    assert seen.max() == 1  # 90 of 100
    assert np.bincount(np.concatenate(rounds), minlength=100).min() >= 2  # 300 draws: every image at least twice
    assert not np.array_equal(rounds[0], drawn([30], seed=1)[0])


@pytest.mark.parametrize("sizes", [[10, 40, 40, 10], [40, 5, 5, 50], [1, 98, 1]])
@pytest.mark.parametrize("seed", range(5))
def test_rounds_of_different_sizes_share_no_image_before_all_were_drawn(sizes, seed):
    rounds = drawn(sizes + sizes[::-1], seed)
    assert [len(r) for r in rounds] == sizes + sizes[::-1]
    for of_pass in (rounds[: len(sizes)], rounds[len(sizes) :]):
        assert sorted(np.concatenate(of_pass)) == list(range(100))


def test_a_draw_is_reproducible_and_in_the_order_of_the_parts():
    one, two = (draw_round(PARTS, ROWS, before=66, count=33, seed=5) for _ in range(2))
    assert ids(one).tolist() == ids(two).tolist() == sorted(ids(one))
    assert one.images == 33


def test_parts_without_a_chosen_row_are_left_out():
    chosen = full_selection(PARTS, [50, 0, 50]).sample(40, (1,))
    assert chosen.parts == [PARTS[0], PARTS[2]]
    assert chosen.images == 40


def test_a_round_reads_no_more_parts_than_it_needs():
    parts, rows = [f"part-{i:05d}.parquet" for i in range(800)], [500] * 800
    for number in range(20):
        chosen = draw_round(parts, rows, before=2000 * number, count=2000, seed=3)
        assert chosen.images == 2000
        assert len(chosen.parts) <= 5
    seen = {part for n in range(200) for part in draw_round(parts, rows, before=2000 * n, count=2000, seed=3).parts}
    assert len(seen) == 800


def test_a_sample_of_few_parts_is_spread_over_them():
    parts, rows = [f"part-{i:05d}.parquet" for i in range(313)], [512] * 312 + [100]
    whole = full_selection(parts, rows)
    chosen = whole.sample(500, (0, 29), 16)
    assert (chosen.images, len(chosen.parts)) == (500, 16)
    assert chosen.parts == sorted(chosen.parts)
    assert max(len(r) for r in chosen.rows) <= 60  # 31 of each on average
    assert all((np.diff(r) > 0).all() and r.max() < 512 for r in chosen.rows)
    again, other = whole.sample(500, (0, 29), 16), whole.sample(500, (1, 29), 16)
    assert [r.tolist() for r in again.rows] == [r.tolist() for r in chosen.rows]
    assert other.parts != chosen.parts
    assert len(whole.sample(500, (0, 29)).parts) > 200  # without the bound nearly all are read


def test_a_sample_takes_more_parts_where_they_are_small():
    whole = full_selection([f"part-{i:05d}.parquet" for i in range(100)], [10] * 100)
    chosen = whole.sample(305, (0,), 16)
    assert (chosen.images, len(chosen.parts)) == (305, 31)
    assert whole.sample(2000, (0,), 16).images == 1000


def test_a_sample_of_no_more_parts_than_the_bound_is_one_of_all_images():
    whole = full_selection(PARTS, ROWS)
    assert ids(whole.sample(40, (1,), 16)).tolist() == ids(whole.sample(40, (1,))).tolist()
