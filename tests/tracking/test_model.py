"""The detector as a folder that needs nothing else, and as MLflow's model."""

import io

import cv2
import mlflow
import numpy as np
import pytest
import torch

from ray_kplm.detectors.stored import export
from ray_kplm.errors import RunError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.points.stored import EDITED, point_folder, write_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking.model import build_model, example_images, export_model, installed_packages, model_requirements


@pytest.fixture
def finished(run, finish) -> Run:
    return finish(run)


@pytest.fixture
def model(finished, images, tmp_path) -> mlflow.pyfunc.PyFuncModel:
    kept = Folder.at(tmp_path / "kept")
    export_model(finished, 400, kept)
    build_model(kept, tmp_path / "model", "0" * 32, "m-1")
    kept.delete()
    finished.folder.delete()
    return mlflow.pyfunc.load_model(str(tmp_path / "model"))


def test_an_exported_detector_finds_the_landmarks_of_the_run(finished, images, tmp_path):
    export(finished, Folder.at(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["channels.json", "config.yaml", "manifest.json", "network.pt"]
    assert set(torch.load(io.BytesIO((tmp_path / "network.pt").read_bytes()), weights_only=True)) == {"network"}
    for flip in (None, False):
        there = LandmarkDetector.load(finished.folder.path, device="cpu", flip=flip).predict(list(images))
        here = LandmarkDetector.load(tmp_path, device="cpu", flip=flip).predict(list(images))
        np.testing.assert_array_equal([a.xy for a in there], [b.xy for b in here])
        np.testing.assert_array_equal([a.confidence for a in there], [b.confidence for b in here])


def test_an_unfinished_run_has_no_detector(run, tmp_path):
    for act in (lambda: LandmarkDetector.load(run.folder.path), lambda: export(run, Folder.at(tmp_path))):
        with pytest.raises(RunError, match="stage2 is not finished"):
            act()


def test_the_model_takes_raw_images(model, images):
    found = model.predict(images)
    assert found["xy"].shape == (2, 5, 2)
    assert found["confidence"].shape == (2, 5)
    assert found["xy"].dtype == found["confidence"].dtype == np.float32
    assert ((found["xy"] >= -0.5) & (found["xy"] <= [63.5, 47.5])).mean() > 0.5  # pixels of the 64 x 48 images
    np.testing.assert_allclose(model.predict(images[:1])["xy"], found["xy"][:1], atol=1e-3)
    with pytest.raises(mlflow.exceptions.MlflowException, match="uint8"):
        model.predict(images.astype(np.float32))


def test_the_model_finds_the_points_of_an_edit(finished, point_sets, images, tmp_path):
    landmarks = LandmarkDetector.load(finished.folder.path, device="cpu")
    points = point_sets(landmarks.landmarks)["edited"]
    write_point_set(point_folder(finished.folder, EDITED), points)
    expected = LandmarkDetector.load(finished.folder.path, device="cpu").predict(list(images))
    kept = Folder.at(tmp_path / "kept")
    export_model(finished, 400, kept)
    build_model(kept, tmp_path / "model", "0" * 32, "m-1")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert [spec.shape[1] for spec in model.metadata.get_output_schema().inputs] == [3, 3]
    np.testing.assert_array_equal(model.predict(images)["xy"], [one.xy for one in expected])
    assert model.get_raw_model().layout == points.layout


def test_the_raw_model_takes_files_and_encoded_images_of_any_size(model, images, tmp_path):
    detector = model.get_raw_model()
    small = np.ascontiguousarray(images[1, :40, :40])
    path = tmp_path / "small.png"
    cv2.imwrite(str(path), small[:, :, ::-1])
    by_array, by_path, by_bytes = detector.predict([small, path, path.read_bytes()])
    np.testing.assert_array_equal(by_path.xy, by_array.xy)
    np.testing.assert_array_equal(by_bytes.xy, by_array.xy)


def test_the_model_has_an_example_and_its_requirements(model, images, tmp_path):
    np.testing.assert_array_equal(model.input_example, example_images(64))
    needed = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    assert needed == list(model_requirements())
    assert f"torch=={torch.__version__.split('+')[0]}" in needed
    assert any(line.startswith("ray-kplm") for line in needed)
    assert not list((tmp_path / "model").rglob("*.pkl"))
    assert f"numpy=={np.__version__}" in installed_packages().splitlines()
