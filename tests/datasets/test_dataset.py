"""A complete dataset opens; any other folder is an error that names the reason."""

import numpy as np
import pytest

from ray_kplm.datasets.dataset import Dataset, IngestOptions, PartBuilder
from ray_kplm.datasets.landmark_arrays import landmark_arrays
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder

NAN = float("nan")


def make(path, landmarks=2) -> Folder:
    """Two train parts of 2 and 1 images, no test images."""
    root = Folder.at(path)
    identity = coordinates.translation(0, 0)
    for number, ids in enumerate([["a", "b"], ["c"]]):
        part = PartBuilder(landmarks)
        for i, image_id in enumerate(ids):
            annotation = {"landmarks": [[number + 2, i], [NAN, NAN]], "yaw": 10 * i} if landmarks else None
            box = np.array([1.0, 2.0, 3.0, 4.0]) if i == 0 else None
            part.add(image_id, b"jpeg", np.zeros((30, 40 + i, 3), np.uint8), box, identity, annotation)
        tables = part.tables()
        (root / "train" / "images").write_table(f"part-{number:05d}.parquet", tables.images)
        if landmarks:
            (root / "train" / "landmarks").write_table(f"part-{number:05d}.parquet", tables.landmarks)
    parts = ["part-00000.parquet", "part-00001.parquet"]
    splits = {
        "train": {"images": 3, "parts": parts, "rows": [2, 1]},
        "test": {"images": 0, "parts": [], "rows": []},
    }
    root.write_json("dataset.json", {"name": "cow"})
    manifest = {"kind": "dataset", "fingerprint": "f00", "splits": splits, "landmarks": landmarks}
    root.write_json("manifest.json", manifest)
    return root


def test_open_reads_the_manifest(tmp_path):
    root = make(tmp_path)
    dataset = Dataset.open(tmp_path)
    assert dataset == Dataset.open(root)
    assert dataset.parts("train") == dataset.images("train").parts() == dataset.landmarks("train").parts()
    assert dataset.rows("train") == [2, 1]
    assert (dataset.count("train"), dataset.count("test")) == (3, 0)
    assert dataset.meta["name"] == "cow"
    assert dataset.fingerprint == "f00"
    assert dataset.has_landmarks
    with pytest.raises(DataError, match="no split 'val'; it has"):
        dataset.count("val")


def test_landmark_arrays_line_up_over_parts(tmp_path):
    make(tmp_path)
    arrays = landmark_arrays(Dataset.open(tmp_path), "train")
    assert arrays.ids == ["a", "b", "c"]
    assert arrays.landmarks.dtype == np.float32
    assert arrays.landmarks[:, 0].tolist() == [[2, 0], [2, 1], [3, 0]]
    assert np.isnan(arrays.landmarks[:, 1]).all()
    assert arrays.boxes[[0, 2]].tolist() == [[1, 2, 3, 4]] * 2
    assert np.isnan(arrays.boxes[1]).all()
    assert arrays.sizes.tolist() == [[40, 30], [41, 30], [40, 30]]
    assert arrays.visible.tolist() == [[True, False]] * 3
    assert {name: values.tolist() for name, values in arrays.attributes.items()} == {"yaw": [0, 10, 0]}
    assert landmark_arrays(Dataset.open(tmp_path), "test").landmarks.shape == (0, 2, 2)


def test_landmark_arrays_need_annotation(tmp_path):
    make(tmp_path, landmarks=0)
    dataset = Dataset.open(tmp_path)
    assert not dataset.has_landmarks
    with pytest.raises(DataError, match="no landmarks to evaluate against"):
        landmark_arrays(dataset, "train")


def test_unfinished_absent_or_other_folders_do_not_open(tmp_path):
    root = make(tmp_path / "d")
    root.delete_file("manifest.json")
    for path in (tmp_path / "d", tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no finished dataset.*kplm ingest SOURCE"):
            Dataset.open(path)
    root.write_json("manifest.json", {"kind": "run"})
    with pytest.raises(DataError, match=r"no dataset: its manifest\.json is of kind 'run'"):
        Dataset.open(tmp_path / "d")


def test_visible_must_fit_the_landmarks():
    part = PartBuilder(2)
    annotation = {"landmarks": [[1, 2], [3, 4]], "visible": [True]}
    with pytest.raises(DataError, match="bad annotation: 1 values of visible for 2 landmarks"):
        part.add("a", b"", np.zeros((9, 9, 3), np.uint8), None, coordinates.translation(0, 0), annotation)
    tables = part.tables()
    assert tables.images.num_rows == tables.landmarks.num_rows == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": -0.1},
        {"size": 31},
        {"test_share": 1.0},
        {"part_images": 0},
        {"min_side": 0},
        {"workers": 0},
    ],
)
def test_errors_of_options_out_of_range_name_the_option(wrong):
    with pytest.raises(ConfigError, match=f"ingest: {next(iter(wrong))} "):
        IngestOptions(**wrong)
