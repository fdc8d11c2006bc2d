"""Parts of features on storage: columns that are read alone, and parts of earlier versions."""

import numpy as np
import pytest

from ray_kplm import schemas
from ray_kplm.bench.counted_storage import CountedStorage
from ray_kplm.correspondence import features as module
from ray_kplm.correspondence.features import (
    feature_parts,
    features_table,
    is_whole,
    read_counts,
    read_descriptors,
    read_features,
    read_keypoints,
    write_features,
)
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

PART, IMAGES, DIM = "part-00003.parquet", 400, 64


def made():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 60, IMAGES)
    total = int(counts.sum())
    plain, flipped = (rng.normal(size=(total, DIM)).astype(np.float16) for _ in range(2))
    plain[3, 5], flipped[7], plain[9] = np.nan, 0, np.inf
    sizes = rng.integers(60, 90, (IMAGES, 2))
    xy, score = rng.random((total, 2)).astype(np.float32), rng.random(total).astype(np.float32)
    table = features_table([f"a/{i}.png" for i in range(IMAGES)], sizes, counts, xy, score, plain, flipped)
    return table, counts, sizes, xy, score, plain, flipped


def write_as_before(folder: Folder, table) -> None:
    """Write a part as earlier versions did."""
    folder.write_table(PART, table.drop_columns(["usable"]).replace_schema_metadata(table.schema.metadata))


@pytest.mark.parametrize("version", ["arrow", "parquet"])
def test_a_part_comes_back_in_any_selection(tmp_path, version):
    folder = Folder.at(tmp_path)
    table, counts, sizes, xy, score, plain, flipped = made()
    write_features(folder, PART, table) if version == "arrow" else write_as_before(folder, table)
    assert folder.names() == [PART.replace("parquet", version)]
    assert feature_parts(folder) == [PART]
    assert is_whole(folder, PART)
    usable = np.ones(len(xy), bool)
    usable[[3, 7, 9]] = False
    whole = read_features(folder, PART)
    for found in (whole, read_keypoints(folder, PART)):
        assert found.image_id.to_pylist() == [f"a/{i}.png" for i in range(IMAGES)]
        for name, expected in {"sizes": sizes, "counts": counts, "xy": xy, "score": score, "usable": usable}.items():
            np.testing.assert_array_equal(getattr(found, name), expected)
    np.testing.assert_array_equal(read_counts(folder, PART).counts, counts)
    np.testing.assert_array_equal(read_counts(folder, PART).usable, usable)
    both, one = read_descriptors(folder, PART), read_descriptors(folder, PART, mirrored=False)
    assert (len(both), len(one)) == (2, 1)
    for found in (whole.descriptors, both[0], one[0]):
        np.testing.assert_array_equal(found, plain)
    for found in (whole.descriptors_flipped, both[1]):
        np.testing.assert_array_equal(found, flipped)


def test_no_descriptor_is_read_to_count_or_to_place_keypoints(tmp_path):
    storage = CountedStorage()
    folder, table = storage.folder(str(tmp_path)), made()[0]
    write_features(folder, PART, table)
    read = storage.read_bytes
    few = sum(table[name].nbytes for name in table.column_names if not name.startswith("descriptors"))
    for function in (read_counts, read_keypoints):
        read.clear()
        function(folder, PART)
        assert read.total() < 0.2 * folder.size(module.file_of(PART))
    assert read.total() >= few


def test_an_empty_part_comes_back(tmp_path):
    none = np.zeros((0, DIM), np.float16)
    table = features_table(["a", "b"], np.full((2, 2), 9), np.zeros(2, int), np.zeros((0, 2)), np.zeros(0), none, none)
    write_features(Folder.at(tmp_path), PART, table)
    found = read_features(Folder.at(tmp_path), PART)
    assert found.counts.tolist() == [0, 0]
    assert found.descriptors_flipped.shape == (0, DIM)
    assert read_counts(Folder.at(tmp_path), PART).usable.shape == (0,)


def test_another_table_is_refused_with_its_columns(tmp_path):
    folder = Folder.at(tmp_path)
    folder.write_arrow(module.file_of(PART), made()[0].drop_columns(["width"]))
    with pytest.raises(DataError, match=r"part-00003.*columns .*'usable'.* are not those of features"):
        read_features(folder, PART)
    folder.delete_file(module.file_of(PART))
    folder.write_table(PART, made()[0].select(schemas.KEYPOINTS.names))
    with pytest.raises(DataError, match="are not those of features"):
        read_features(folder, PART)
