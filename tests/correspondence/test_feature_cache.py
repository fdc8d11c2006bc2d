"""How often parts of features are read, and what stays in memory, by the budget."""

from collections import Counter

import numpy as np
import pytest

from ray_kplm.config import load_config
from ray_kplm.correspondence import feature_cache
from ray_kplm.correspondence.feature_cache import FeatureCache
from ray_kplm.correspondence.features import features_table, read_descriptors, read_features
from ray_kplm.correspondence.in_memory import POINT_BYTES, Rows
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.correspondence.update import update
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

PARTS, IMAGES, POINTS, DIM = 4, 20, 5, 16
ROWS = IMAGES * POINTS
WHOLE = ROWS * (4 * DIM + 12 + 2 * POINT_BYTES)
"""Bytes of a part that is kept whole, but for the names of its images."""


@pytest.fixture
def reads(monkeypatch):
    """How often each part was read; the whole memory budget is for features."""
    counted = Counter()

    def counting(read):
        def read_and_count(folder, part):
            counted[part] += 1
            return read(folder, part)

        return read_and_count

    monkeypatch.setattr(feature_cache, "read_features", counting(read_features))
    monkeypatch.setattr(feature_cache, "read_descriptors", counting(read_descriptors))
    monkeypatch.setattr(feature_cache, "_WORKING_BYTES", 0)
    monkeypatch.setattr(feature_cache, "_CACHE_SHARE", 1.0)
    return counted


@pytest.fixture
def features(tmp_path):
    folder, rng = Folder.at(tmp_path / "features"), np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:POINTS]

    def descriptors():
        points = np.tile(centres, (IMAGES, 1)) + 0.05 * rng.normal(size=(ROWS, DIM))
        return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))

    for part in range(PARTS):
        ids, counts = [f"{part}/{i}" for i in range(IMAGES)], np.full(IMAGES, POINTS)
        xy, sizes = rng.uniform(0, 95, (ROWS, 2)), np.full((IMAGES, 2), 96)
        folder.write_table(
            f"part-{part:05d}.parquet",
            features_table(ids, sizes, counts, xy, rng.random(ROWS), descriptors(), descriptors()),
        )
    return folder


class Shards:
    def __init__(self, folder, memory):
        self.shard = DescriptorShard(folder, folder.parts(), memory_bytes=memory, seed=0)

    def ask(self, method, *arguments):
        return [getattr(self.shard, method)(*arguments)]


def run(folder, memory, tmp_path):
    config = load_config(None, ["method.landmarks=5", "method.clusters=8", "clustering.fit_points=300"])
    labels = Folder.at(tmp_path / f"labels-{memory}")
    found = update(Shards(folder, memory), labels, config, 1, lambda share, text: None)
    return found.cluster_centroids.tobytes(), [labels.read_table(part) for part in labels.parts()]


def test_an_update_reads_each_part_once_if_it_fits(features, reads, tmp_path):
    run(features, 2**30, tmp_path)
    assert reads == dict.fromkeys(features.parts(), 1)


def test_what_does_not_fit_is_read_again_and_the_result_is_the_same(features, reads, tmp_path):
    expected, tables = run(features, 2**30, tmp_path)
    before = None
    for memory in (0, 20_000, 40_000):
        reads.clear()
        found, others = run(features, memory, tmp_path)
        assert found == expected
        assert all(a.equals(b) for a, b in zip(tables, others, strict=True))
        assert before is None or sum(reads.values()) < before
        before = sum(reads.values())
    # The fits' points are in memory, the rest is not: the first pass, two fits, the filter, and the labels.
    assert max(reads.values()) <= 5


def test_counting_a_fit_reads_nothing(features, reads):
    shard = DescriptorShard(features, features.parts(), memory_bytes=0, seed=0)
    shard.begin()
    reads.clear()
    assert shard.begin_fit(1.0).points == 2 * PARTS * ROWS
    assert shard.begin_fit(1.0, mirrored=False).points == PARTS * ROWS
    assert 0.4 < shard.begin_fit(0.5).points / (2 * PARTS * ROWS) < 0.6
    assert not reads


def rows_of(part, descriptors):
    return [Rows.all_of(descriptors[0])]


def begun(features, memory):
    cache = FeatureCache(features, features.parts(), memory)
    assert [part for part, _ in cache.begin()] == features.parts()
    return cache


def test_descriptors_of_the_fit_replace_whole_parts_where_these_leave_no_room(features, reads):
    compact = ROWS * (2 * DIM + POINT_BYTES)
    state, counts = PARTS * ROWS * 11, dict.fromkeys(features.parts(), ROWS)
    room = state + 4 * compact + 500  # two whole parts would leave no room for the fit's share of the others
    assert room < state + 2 * WHOLE + 2 * compact
    cache = begun(features, room)
    held = cache.hold(counts, rows_of)
    assert sorted(held) == features.parts()
    for part, sources in held.items():
        np.testing.assert_array_equal(sources[0].take(), read_features(features, part).descriptors)
    reads.clear()
    for _ in cache.read():
        pass
    assert reads == dict.fromkeys(features.parts(), 1)


def test_no_more_is_held_than_the_budget(features, reads):
    compact, counts = ROWS * (2 * DIM + POINT_BYTES), dict.fromkeys(features.parts(), ROWS)
    cache = begun(features, PARTS * ROWS * 11 + 3 * compact)
    assert len(cache.hold(counts, rows_of)) == 3
    assert begun(features, 0).hold(counts, rows_of) == {}


def test_parts_of_another_size_of_descriptor_are_named(features, reads):
    wide = np.ones((ROWS, 8), np.float16)
    ids, counts = [str(i) for i in range(IMAGES)], np.full(IMAGES, POINTS)
    table = features_table(ids, np.full((IMAGES, 2), 96), counts, np.zeros((ROWS, 2)), np.ones(ROWS), wide, wide)
    features.write_table("part-00002.parquet", table)
    with pytest.raises(DataError, match=r"part-00002.parquet: descriptors of 8 numbers where other parts have 16"):
        begun(features, 2**30)
