"""Points that a run's evaluation stored are taken; points of sets are made of them; the network does the rest."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.analysis.stored_predictions import prediction_step
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.stored import export
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import point_folder, write_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.view.gallery import _LONGEST_NAME, DatasetGallery, FileGallery, file_name_of, open_gallery
from ray_kplm.view.predictions import Predictions

from .conftest import IMAGES, K, open_workspace


def predictions(run, **options) -> Predictions:
    gallery = open_gallery([run.config.dataset], options.get("split"), options.get("most", 1000))
    return Predictions(run, gallery, device="cpu", least=0.5)


def store(run, split: str) -> np.ndarray:
    """Store made-up landmarks of a split, as an evaluation does; return them, (N, K, 2)."""
    dataset = Dataset.open(run.config.dataset)
    step = prediction_step(run, dataset, "stage2", split, run.finished("stage2"))
    step.begin()
    xy = np.random.default_rng(0).uniform(0, 60, (dataset.count(split), K, 2)).astype(np.float32)
    start = 0
    for part, count in zip(dataset.parts(split), dataset.rows(split), strict=True):
        rows = xy[start : start + count]
        columns = [["x"] * count, rows.tolist(), [[0.5] * K] * count, [[0.25, 0.5, 0.75, 1.0]] * count]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schemas.PREDICTIONS, strict=True)]
        step.folder.write_table(part, pa.Table.from_arrays(arrays, schema=schemas.PREDICTIONS))
        start += count
    step.finish(images=len(xy))
    return xy


def test_stored_landmarks_are_taken_and_the_others_predicted(run):
    xy, found = store(run, "train"), predictions(run)
    found.predict("landmarks", [6, 20])
    assert not found._networks
    np.testing.assert_array_equal(found.table("landmarks").get(6).xy, xy[0])
    np.testing.assert_array_equal(found.table("landmarks").get(20).xy, xy[14])
    assert found.table("landmarks").get(20).flags.tolist() == [1, 2, 2, 2]
    assert found.table("landmarks").likelihood(None)[20] == pytest.approx(0.625)
    assert found.table("landmarks").get(0) is None
    found.predict("landmarks", [0])
    (expected,) = LandmarkDetector.load(run.folder.path, device="cpu").predict(found.gallery.stored(0))
    np.testing.assert_allclose(found.table("landmarks").get(0).xy, expected.xy, atol=1e-3)


def test_points_of_a_set_are_made_of_stored_landmarks_as_of_predicted_ones(run):
    layout = Layout("", ("one", "two"), (0, 1))
    write_point_set(point_folder(run.folder, "mine"), PointSet.of_groups(layout, [[2], [0, 3]], K))
    xy, found = store(run, "test"), predictions(run)
    found.predict("mine", [0])
    assert not found._networks
    np.testing.assert_allclose(found.table("mine").get(0).xy, [xy[0, 2], xy[0, [0, 3]].mean(0)], atol=1e-3)
    np.testing.assert_allclose(found.table("mine").get(0).probability, [0.75, 0.625])
    found.predict("mine", [10])
    detector = LandmarkDetector.load(run.folder.path, device="cpu", points="mine")
    np.testing.assert_allclose(
        found.table("mine").get(10).xy, detector.predict(found.gallery.stored(10))[0].xy, atol=1e-3
    )


def test_a_set_that_was_made_again_is_predicted_again(run):
    folder, layout = point_folder(run.folder, "mine"), Layout("", ("one",), (0,))
    write_point_set(folder, PointSet.of_groups(layout, [[2]], K))
    found = predictions(run)
    found.predict("mine", [0])
    before = found.table("mine").get(0).xy
    write_point_set(folder, PointSet.of_groups(layout, [[1]], K))
    found.predict("mine", [0])
    assert np.abs(found.table("mine").get(0).xy - before).max() > 0.01


def test_points_with_a_network_of_their_own_are_predicted_by_it_also_when_it_was_trained_again(
    run, untrained_run, tmp_path
):
    folder, found = point_folder(run.folder, "head"), predictions(run)
    points = PointSet.of_groups(Layout("", ("one", "two"), (0, 1)), [[0], [1]], 2)
    store(run, "test")  # of the landmarks, which these points are not made of
    places = []
    for seed in (5, 6):
        folder.delete()
        export(untrained_run(tmp_path / str(seed), 2, f"dataset={run.config.dataset}", seed=seed), folder)
        write_point_set(folder, points)
        found.predict("head", [0])
        places.append(found.table("head").get(0).xy)
        detector = LandmarkDetector.load(run.folder.path, device="cpu", points="head")
        np.testing.assert_allclose(places[-1], detector.predict(found.gallery.stored(0))[0].xy, atol=1e-3)
    assert np.abs(places[0] - places[1]).max() > 0.1


def test_a_limit_of_the_images_is_kept_and_told(run):
    gallery = open_gallery([run.config.dataset], None, 10)
    assert isinstance(gallery, DatasetGallery)
    assert (len(gallery.items), gallery.left_out) == (10, IMAGES - 10)
    assert gallery.part_of(9) == ("train", "part-00000.parquet", range(6, 10))
    store(run, "train")
    found = predictions(run, most=10)
    found.predict("landmarks", range(10))
    assert found.missing("landmarks") == []


def test_few_parts_are_in_memory(run):
    gallery = open_gallery([run.config.dataset], None, 1000)
    for index in [*range(IMAGES), *range(IMAGES)]:
        gallery.stored(index)
        assert len(gallery._parts) <= 4


def test_files_are_found_in_folders_by_names_and_by_patterns(photos):
    assert [item.name for item in FileGallery([str(photos / "*.jpg")], 99).items] == [
        "0.jpg", "1.jpg", "2.jpg", "3.jpg", "broken.jpg",
    ]  # fmt: skip
    both = FileGallery([str(photos / "more"), str(photos / "2.jpg")], 99)
    assert [item.name for item in both.items] == ["more/4.jpg", "2.jpg"]
    assert FileGallery([str(photos)], 2).left_out == 4
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match="no image found"):
        FileGallery([str(photos / "empty")], 9)
    with pytest.raises(DataError, match="no such file"):
        FileGallery([str(photos / "nothing.jpg")], 9)
    with pytest.raises(DataError, match="--split"):
        open_gallery([str(photos)], "test", 9)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("../../etc/passwd", "etc_passwd"), ("a/b.jpg", "a_b"), ("a b?.png", "a_b"), ("é/ü.jpg", "image"), ("", "image"),
        ("x" * 500, "x" * _LONGEST_NAME), (".hidden", "hidden"), ("a\0b", "a_b"),
    ],
)  # fmt: skip
def test_names_of_copied_images_are_safe(name, stem):
    made, digest = file_name_of(name).rsplit("-", 1)
    assert made == stem
    assert digest == hashlib.sha256(name.encode()).hexdigest()[:8]


def test_an_exported_detector_shows_its_points_and_has_none_to_edit(run, photos, tmp_path):
    export(run, Folder.at(tmp_path / "detector"))
    workspace = open_workspace(Run.open(str(tmp_path / "detector")), str(photos), labels=str(tmp_path / "labels.json"))
    state = workspace.state()
    assert ([one["id"] for one in state["sets"]], state["edited"]) == (["landmarks"], None)
    workspace.predictions.predict("landmarks", [0])
    (expected,) = LandmarkDetector.load(tmp_path / "detector", device="cpu").predict(str(photos / "0.jpg"))
    np.testing.assert_allclose(workspace.predictions.table("landmarks").get(0).xy, expected.xy, atol=1e-3)
    for change in (lambda: workspace.adapt("mine"), lambda: workspace.edit([], [])):
        with pytest.raises(ConfigError, match="is an exported detector"):
            change()
