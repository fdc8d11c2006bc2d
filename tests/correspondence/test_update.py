"""The pseudo-label update over shards in this process: known landmarks are found, and the number of shards changes nothing."""

import numpy as np
import pytest

from ray_kplm import schemas
from ray_kplm.config import load_config
from ray_kplm.correspondence.background import Background
from ray_kplm.correspondence.features import (
    feature_parts,
    features_table,
    file_of,
    read_columns,
    read_features,
    write_features,
)
from ray_kplm.correspondence.matched_update import update_matched
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.correspondence.update import update
from ray_kplm.errors import CollapseError, DamageError, DataError
from ray_kplm.storage import Folder

LANDMARKS, DIM, IMAGES, PARTS = 4, 16, 30, 7
SIZES = np.full((IMAGES, 2), 160)
MIRROR = np.array([1, 0, 2, 3])  # landmarks 0 and 1 are left and right
CONFIG = load_config(None, ["method.landmarks=4", "method.clusters=8", "clustering.n_init=2"])


class LocalShards:
    def __init__(self, folder, count, memory=2**30, one_way=False):
        parts, options = feature_parts(folder), {"memory_bytes": memory, "seed": 0, "one_way": one_way}
        self.shards = [DescriptorShard(folder, parts[i::count], **options) for i in range(count)]

    def ask(self, method, *arguments):
        return [getattr(shard, method)(*arguments) for shard in self.shards]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Every image shows each landmark once, landmark 2 twice (the second time less clearly), and one image shows nothing."""
    folder = Folder.at(tmp_path_factory.mktemp("features"))
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:LANDMARKS]
    for part in range(PARTS):
        counts = np.full(IMAGES, LANDMARKS + 1)
        if part == 3:
            counts[5] = 0
        truth = np.concatenate([[0, 1, 2, 3, 2][: int(n)] for n in counts]).astype(int)
        noise = np.concatenate([[0.05, 0.05, 0.05, 0.05, 0.4][: int(n)] for n in counts])

        def descriptors(of, spread):
            points = centres[of] + rng.normal(size=(len(of), DIM)) * (spread / np.sqrt(DIM))[:, None]
            return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)

        xy = np.stack([truth * 10.0, np.arange(len(truth))], axis=1)
        ids = [f"{part}/{i}" for i in range(IMAGES)]
        table = features_table(
            ids, SIZES, counts, xy, 1 - noise, descriptors(truth, noise), descriptors(MIRROR[truth], noise)
        )
        write_features(folder, f"part-{part:05d}.parquet", table)
    return folder


def run(features, tmp_path, shards, config=CONFIG, **options):
    labels = Folder.at(tmp_path / f"labels-{shards}")
    found = update(LocalShards(features, shards, **options), labels, config, 1, lambda share, text: None)
    return found, [labels.read_table(part) for part in labels.parts()]


def test_landmarks_are_found_duplicates_dropped_and_mirror_partners_recovered(features, tmp_path):
    found, tables = run(features, tmp_path, 1)
    assert found.filtered.detected == PARTS * IMAGES * 5 - 5
    assert found.filtered.kept == PARTS * IMAGES * 4 - 4  # the second, less clear point of landmark 2 went
    column = {}
    for table in tables:
        assert table.schema.equals(schemas.LABELS)
        for xy, landmark, score in zip(*(table[c].to_pylist() for c in ("xy", "landmark", "score")), strict=True):
            assert len(set(landmark)) == len(landmark)
            assert all(s > 0.9 for s in score)
            for point, k in zip(xy, landmark, strict=True):
                column.setdefault(k, set()).add(point[0])
    assert sorted(len(places) for places in column.values()) == [1, 1, 1, 1]
    at = {next(iter(places)): k for k, places in column.items()}
    assert found.flip_map[at[0.0]] == at[10.0]
    assert found.flip_map[at[10.0]] == at[0.0]
    assert found.flip_map[at[20.0]] == at[20.0]
    assert found.facts()["flip_map_argmax"] == found.flip_map.tolist()
    assert found.labelled.usable_images == PARTS * IMAGES - 1


@pytest.mark.parametrize("shards", [2, 7])
@pytest.mark.parametrize("memory", [2**30, 0])
def test_any_number_of_shards_and_any_memory_gives_identical_results(features, tmp_path, shards, memory):
    one, tables = run(features, tmp_path, 1)
    many, others = run(features, tmp_path, shards, memory=memory)
    np.testing.assert_array_equal(one.landmark_centroids, many.landmark_centroids)
    np.testing.assert_array_equal(one.cluster_centroids, many.cluster_centroids)
    assert one.landmark_objectives == many.landmark_objectives
    assert all(a.equals(b) for a, b in zip(tables, others, strict=True))


def test_a_seeded_share_of_the_points_is_fitted_and_all_are_labelled(features, tmp_path):
    config = load_config(None, ["method.landmarks=4", "method.clusters=8", "clustering.fit_points=400"])
    one, tables = run(features, tmp_path, 1, config)
    two, _ = run(features, tmp_path, 7, config)
    assert sum(table.num_rows for table in tables) == PARTS * IMAGES
    assert one.landmark_objectives == two.landmark_objectives
    assert one.landmark_objectives[-1] < 0.5 * run(features, tmp_path / "all", 1)[0].landmark_objectives[-1]


def test_too_few_points_stop_with_the_settings_to_look_at(features, tmp_path):
    config = load_config(None, ["method.landmarks=4", "method.clusters=8", "limits.min_points_per_image=5"])
    with pytest.raises(CollapseError, match=r"3\.9\d points an image .* limits.min_points_per_image = 5.0"):
        run(features, tmp_path, 1, config)
    config = load_config(None, ["method.landmarks=4", "method.clusters=30000"])
    with pytest.raises(CollapseError, match="30000 clusters"):
        run(features, tmp_path, 1, config)


@pytest.mark.parametrize("fault", ["truncated", "missing", "columns"])
def test_the_error_of_a_bad_part_names_it(features, tmp_path, fault):
    folder = Folder.at(tmp_path / "bad")
    for name in features.names():
        folder.write_bytes(name, features.read_bytes(name))
    victim = "part-00002.parquet"
    stored = file_of(victim)
    if fault == "truncated":
        folder.write_bytes(stored, features.read_bytes(stored)[:200])
    elif fault == "missing":
        folder.delete_file(stored)
    else:
        folder.write_arrow(stored, features.read_arrow(stored).drop_columns(["score"]))
    with pytest.raises(DamageError if fault == "truncated" else DataError, match="part-00002"):
        read_features(folder, victim)


def test_keypoints_without_a_usable_descriptor_are_left_out_and_counted(features, tmp_path):
    folder = Folder.at(tmp_path / "holes")
    for name in features.names():
        folder.write_bytes(name, features.read_bytes(name))
    part = read_features(folder, "part-00001.parquet")
    plain, mirrored = part.descriptors.copy(), part.descriptors_flipped.copy()
    plain[0, 3], plain[5] = np.nan, 0
    mirrored[10, 0] = np.inf
    table = features_table(part.image_id.to_pylist(), SIZES, part.counts, part.xy, part.score, plain, mirrored)
    write_features(folder, "part-00001.parquet", table)
    found, tables = run(folder, tmp_path, 2)
    assert found.facts()["unusable_keypoints"] == 3
    whole, _ = run(features, tmp_path / "whole", 2)
    assert found.filtered.kept == whole.filtered.kept - 3
    assert sum(len(xy) for table in tables for xy in table["xy"].to_pylist()) == found.filtered.kept


def test_the_error_of_a_part_of_another_width_names_it(features, tmp_path):
    folder = Folder.at(tmp_path / "mixed")
    for name in features.names():
        folder.write_bytes(name, features.read_bytes(name))
    part = read_features(folder, "part-00002.parquet")
    narrow = part.descriptors[:, :8]
    table = features_table(part.image_id.to_pylist(), SIZES, part.counts, part.xy, part.score, narrow, narrow)
    write_features(folder, "part-00002.parquet", table)
    with pytest.raises(DataError, match=r"part-00002.parquet: descriptors of 8 numbers where other parts have 16"):
        run(folder, tmp_path, 1)


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_chapter_5_matches_clusters_and_drops_distant_keypoints(features, tmp_path, shards):
    config = load_config(None, ["method.landmarks=4", "method.clusters=4"])
    labels = Folder.at(tmp_path / "labels")
    log = lambda share, text: None  # noqa: E731
    first = update_matched(LocalShards(features, shards), labels, config, 1, None, log)
    again = update_matched(LocalShards(features, shards), labels, config, 2, first.centroids, log)
    assert len(again.objectives) <= 3  # from the last round's centroids there is nothing left to move
    np.testing.assert_allclose(again.centroids, first.centroids, atol=0.02)
    for part in labels.parts():
        table = labels.read_table(part)
        assert table.schema.equals(schemas.LABELS)
        for cluster, landmark, flipped, score in zip(
            *(table[c].to_pylist() for c in ("cluster", "landmark", "cluster_flipped", "score")), strict=True
        ):
            assert len(set(cluster)) == len(cluster)
            assert cluster == landmark
            assert set(flipped) <= {schemas.NONE}
            assert all(s > 0.9 for s in score)  # the blurred copy of landmark 2 never wins
    assert again.labelled.trained < 4 * PARTS * IMAGES  # some lie beyond mean + 1 standard deviation
    one = update_matched(LocalShards(features, 1), Folder.at(tmp_path / "one"), config, 1, None, log)
    np.testing.assert_array_equal(one.cutoff, first.cutoff)
    np.testing.assert_array_equal(one.centroids, first.centroids)
    assert one.labelled.trained == first.labelled.trained


def marked(features, folder):
    """Every image also shows a mark at one place, twice as often as any landmark, and each landmark somewhere else."""
    rng = np.random.default_rng(1)
    folder = Folder.at(folder)
    for part in feature_parts(features):
        read = read_features(features, part)
        moved = read.xy + rng.normal(size=read.xy.shape) * 8
        image = np.concatenate([read.image, np.arange(IMAGES)])
        order = np.argsort(image, kind="stable")
        mark = np.tile([40.0, 90.0], (IMAGES, 1)) + rng.normal(size=(IMAGES, 2)) * 0.3
        look = np.eye(DIM)[np.zeros(IMAGES, int)] + rng.normal(size=(IMAGES, DIM)) * 0.02

        def joined(a, b, order=order):
            return np.concatenate([a, b.astype(a.dtype)])[order]

        table = features_table(
            read.image_id.to_pylist(),
            read.sizes,
            read.counts + 1,
            joined(moved, mark),
            joined(read.score, np.full(IMAGES, 0.5)),
            joined(read.descriptors, look),
            joined(read.descriptors_flipped, look),
        )
        write_features(folder, part, table)
    return folder


def test_a_static_mark_is_reported_and_dropped_if_configured(features, tmp_path):
    folder = marked(features, tmp_path / "marked")
    config = load_config(None, ["method.landmarks=5", "method.clusters=8", "clustering.n_init=3"])
    found, _ = run(folder, tmp_path, 2, config)
    (still,) = found.facts()["static_landmarks"]
    assert found.facts()["position_spread"][still] == pytest.approx(0.3 * 2**0.5 / 160 * 100, rel=0.1)
    assert found.facts()["static_keypoints"] == 0

    config = load_config(
        None, ["method.landmarks=5", "method.clusters=8", "clustering.n_init=3", "method.drop_static=true"]
    )
    kept = {}
    for shards in (1, 3):
        dropped, tables = run(folder, tmp_path, shards, config)
        assert dropped.facts()["static_landmarks"] == []
        assert dropped.excluded >= PARTS * IMAGES
        xy = np.array([point for table in tables for points in table["xy"].to_pylist() for point in points])
        assert (np.linalg.norm(xy - [40, 90], axis=1) < 1).mean() < 0.02
        kept[shards] = tables
    assert all(a.equals(b) for a, b in zip(kept[1], kept[3], strict=True))


FIXED = 3


def of_sizes(folder, sizes, fixed=FIXED):
    """Ten landmarks in crops of given sizes (PARTS * IMAGES, 2), the first `fixed` at one place of the network's input."""
    rng = np.random.default_rng(2)
    folder = Folder.at(folder)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:10]
    home = rng.uniform(0.2, 0.8, (10, 2))
    home[:2] = [0.1, 0.9], [0.9, 0.1]
    for part, of_part in enumerate(np.split(sizes, PARTS)):
        share = home + rng.normal(size=(IMAGES, 10, 2)) * np.where(np.arange(10) < fixed, 0.003, 0.08)[:, None]
        longer = of_part.max(axis=1)[:, None]
        xy = share * longer[:, None] - 0.5 - ((longer - of_part) / 2)[:, None]
        looks = (centres + rng.normal(size=(IMAGES, 10, DIM)) * 0.05 / np.sqrt(DIM)).reshape(-1, DIM).astype(np.float16)
        ids, counts = [f"{part}/{i}" for i in range(IMAGES)], np.full(IMAGES, 10)
        table = features_table(ids, of_part, counts, xy.reshape(-1, 2), np.ones(IMAGES * 10), looks, looks)
        write_features(folder, f"part-{part:05d}.parquet", table)
    return folder


@pytest.mark.parametrize("crops", ["equal", "square", "any"])
def test_a_landmark_fixed_in_the_input_is_static_for_crops_of_any_size(tmp_path, crops):
    rng = np.random.default_rng(3)
    sizes = rng.integers(200, 257, (PARTS * IMAGES, 2))
    if crops != "any":
        sizes[:, 1] = sizes[:, 0] = 230 if crops == "equal" else sizes[:, 0]
    folder = of_sizes(tmp_path / "features", sizes)
    config = load_config(None, ["method.landmarks=10", "method.clusters=20"])
    found, tables = run(folder, tmp_path, 2, config)
    static, spread = found.facts()["static_landmarks"], found.facts()["position_spread"]
    assert len(static) == FIXED
    assert [spread[k] for k in static] == pytest.approx([0.3 * 2**0.5] * FIXED, abs=0.05)  # % of the side
    assert min(spread[k] for k in range(10) if k not in static) == pytest.approx(8 * 2**0.5, rel=0.15)
    for part, table in zip(feature_parts(folder), tables, strict=True):  # labels stay in the crops' pixels
        assert table["xy"].to_pylist() == read_columns(folder, part, ["xy"])["xy"].to_pylist()


@pytest.mark.parametrize("known", [0, 2])
def test_auto_drops_static_landmarks_at_places_of_the_background_alone(tmp_path, known):
    folder = of_sizes(tmp_path / "features", np.full((PARTS * IMAGES, 2), 230))
    config = load_config(None, ["method.landmarks=10", "method.clusters=20"])
    places = np.array([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]])[:known]  # the first two are those of static landmarks
    background = Background(places, np.ones((known, 1), np.float32)) if known else None
    progress = lambda share, text: None  # noqa: E731
    shards = LocalShards(folder, 2)
    found = update(shards, Folder.at(tmp_path / "labels"), config, 1, progress, background=background)
    assert found.excluded == known * PARTS * IMAGES
    assert len(found.facts()["static_landmarks"]) >= FIXED - known


def test_a_round_of_static_landmarks_alone_is_refused(tmp_path):
    folder = of_sizes(tmp_path / "features", np.full((PARTS * IMAGES, 2), 230), fixed=10)
    config = load_config(None, ["method.landmarks=10", "method.clusters=20", "method.drop_static=true"])
    with pytest.raises(CollapseError, match=r"all 10 landmarks stand still.*method.drop_static=no"):
        run(folder, tmp_path, 1, config)


def test_progress_rises_to_the_end(features, tmp_path):
    calls = []
    update(LocalShards(features, 2), Folder.at(tmp_path), CONFIG, 1, lambda share, text: calls.append((share, text)))
    shares = [share for share, _ in calls]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert "K = 4: best of 2 starts, objective" in calls[0][1]
    assert "M = 8: iteration" in calls[-1][1]


ONE_WAY = load_config(None, ["method.landmarks=4", "method.clusters=8", "clustering.n_init=2", "method.mirror=facing"])


def test_objects_that_face_one_way_are_clustered_by_their_own_descriptors_alone(features, tmp_path):
    """The descriptors of the mirror images could be anything."""
    noise = Folder.at(tmp_path / "noise")
    rng = np.random.default_rng(5)
    for part in feature_parts(features):
        known = read_features(features, part)
        other = rng.normal(size=known.descriptors.shape)
        other = (other / np.linalg.norm(other, axis=1, keepdims=True)).astype(np.float16)
        ids = known.image_id.to_pylist()
        table = features_table(ids, known.sizes, known.counts, known.xy, known.score, known.descriptors, other)
        write_features(noise, part, table)
    plain, tables = run(features, tmp_path / "plain", 1, ONE_WAY, one_way=True)
    replaced, others = run(noise, tmp_path / "replaced", 3, ONE_WAY, one_way=True)
    np.testing.assert_array_equal(plain.landmark_centroids, replaced.landmark_centroids)
    np.testing.assert_array_equal(plain.cluster_centroids, replaced.cluster_centroids)
    assert plain.landmark_objectives == replaced.landmark_objectives
    assert all(a.equals(b) for a, b in zip(tables, others, strict=True))


def test_a_landmark_of_an_object_that_faces_one_way_is_itself_in_the_mirror(features, tmp_path):
    found, tables = run(features, tmp_path, 2, ONE_WAY, one_way=True)
    assert found.flip_map.tolist() == [0, 1, 2, 3]
    for table in tables:
        assert table["cluster_flipped"].equals(table["cluster"])
    _, tables = run(features, tmp_path / "partners", 2)
    assert not all(table["cluster_flipped"].equals(table["cluster"]) for table in tables)
