"""The folder that `kplm push` writes: its files, what its card takes from the run, and what is refused. No Ray."""

import io
import json
import os

import numpy as np
import pytest
import ray
import yaml
from PIL import Image

from ray_kplm.analysis.point_set_list import FACTS
from ray_kplm.analysis.share import ShareOptions, is_synthetic, write_model
from ray_kplm.cli.main import main
from ray_kplm.detectors.pretrained_config import open_detector
from ray_kplm.detectors.stored import export
from ray_kplm.errors import ConfigError, DataError, StorageError
from ray_kplm.evaluation import label_free
from ray_kplm.imaging.draw import EDGE
from ray_kplm.imaging.synthetic.category import LICENCE
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import point_folder, write_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import seal

METRICS = {
    "forward_nme": 6.25, "backward_nme": 5.0, "mean_shape_nme": 7.0, "images": 7, "min_landmark_distance": 0.5, "left_out": {},
    "backward_per_landmark": [5.0, 5.0, 5.0, 5.0],
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))


def written(run: Run, folder, **options) -> tuple[dict, str]:
    figures = write_model(run, Folder.at(folder), ShareOptions("me/noise", **options))
    return figures, (folder / "README.md").read_text()


def describe_dataset(run: Run, **values) -> None:
    folder = Folder.at(run.config.dataset)
    folder.write_json("dataset.json", {**folder.read_json("dataset.json"), **values})


def test_a_run_becomes_detector_card_and_layout_and_no_image_of_the_data(noise_run, tmp_path):
    describe_dataset(noise_run, licence="CC BY 4.0")
    figures, card = written(noise_run, tmp_path / "shared")
    names = {"model.safetensors", "config.json", "README.md", "layout.png"}
    assert names == figures["files"].keys() == set(os.listdir(tmp_path / "shared"))
    assert (figures["landmarks"], figures["synthetic"]) == (4, False)
    assert "The mean layout of the landmarks over 7 images" in " ".join(card.split())
    assert "4 landmarks of noise" in card
    assert "| licence of the images | CC BY 4.0 |" in card
    assert "Not scored against annotation" in card
    assert str(tmp_path) not in card
    assert Image.open(tmp_path / "shared" / "layout.png").size == (480, 480)
    loaded = LandmarkDetector.from_pretrained(tmp_path / "shared", device="cpu")
    image = np.random.default_rng(1).integers(0, 256, (50, 40, 3), np.uint8)
    expected = LandmarkDetector.load(noise_run.folder.path, device="cpu").predict([image])[0]
    np.testing.assert_array_equal(loaded.predict([image])[0].xy, expected.xy)


def test_images_are_on_the_card_only_if_they_are_wanted(noise_run, tmp_path):
    figures, card = written(noise_run, tmp_path / "shared", with_images=True)
    sheet = np.asarray(Image.open(io.BytesIO((tmp_path / "shared" / "examples.png").read_bytes())))
    assert sheet.std() > 20  # noise images, and not a blank sheet
    assert "](examples.png)" in card
    assert "examples.png" in figures["files"]


def test_a_card_says_which_points_there_are_and_how_they_were_made(noise_run, point_sets, tmp_path):
    noise_run.folder.write_json("evaluation/metrics.json", METRICS)
    for name, points in point_sets(4).items():
        write_point_set(point_folder(noise_run.folder, name), points)
    table = [{"name": "horn", "error": 2.5}, {"name": "tail", "error": 7.25}]
    facts = {"images": 21, "error": 4.875, "table": table}
    point_folder(noise_run.folder, "fitted").write_json(FACTS, seal(facts))
    _, default = written(noise_run, tmp_path / "default")
    assert "# 3 points of noise" in default
    assert "3 points are landmarks" not in default
    assert "2 points are landmarks that a person chose or named, 1 points are the mean of several landmarks" in default
    assert "| 1 | left eye | right eye |" in default
    assert "of the 4 discovered landmarks:" in default
    figures, fitted = written(noise_run, tmp_path / "fitted", points="fitted")
    assert (figures["landmarks"], figures["names"]) == (2, ["horn", "tail"])
    assert (
        "The points are those of 21 labelled images: a map from the landmarks, fitted on these, gives them." in fitted
    )
    assert "Their cross-validated error there is 4.88 % of the object's size." in fitted
    assert "| 1 | tail |  | 7.25 % |" in fitted
    loaded = LandmarkDetector.from_pretrained(tmp_path / "fitted", device="cpu")
    assert loaded.layout.skeleton == ((0, 1),)  # derived of the predictions
    assert LandmarkDetector.from_pretrained(tmp_path / "default").layout.skeleton == ((0, 1), (0, 2))
    pictures = [np.asarray(Image.open(tmp_path / name / "layout.png")) for name in ("default", "fitted")]
    assert all((picture == EDGE).all(axis=2).sum() > 100 for picture in pictures)


def test_scores_of_the_run_are_not_said_of_points_with_a_network_of_their_own(noise_run, tmp_path):
    noise_run.folder.write_json("evaluation/metrics.json", METRICS)
    head = point_folder(noise_run.folder, "head")
    export(noise_run, head)
    layout = Layout("", ("a", "b", "c", "d"), (0, 1, 2, 3))
    write_point_set(head, PointSet.of_groups(layout, [[0], [1], [2], [3]], 4))
    _, card = written(noise_run, tmp_path / "shared", points="head")
    assert "found by a network of their own that was trained on these" in card
    assert "Not scored against annotation" in card
    assert "discovered landmarks, which nobody placed" in card


def test_scores_and_warnings_are_those_of_the_run(noise_run, tmp_path):
    folder = noise_run.folder / "evaluation"
    folder.write_json("metrics.json", METRICS)
    quality = {
        "equivariance_error": 2.5,
        "score": 9.0,
        "warnings": ["landmark 3 does not move"],
        "against": {"run": "secret"},
    }
    folder.write_json("quality.json", {**dict.fromkeys(label_free.PER_LANDMARK), **quality})
    figures, card = written(noise_run, tmp_path / "shared")
    assert (
        "| Forward NME | 6.25 % | error of the annotated points predicted from the landmarks; of the mean shape: 7.00 %"
        in card
    )
    assert "| Equivariance | 2.50 % |" in card
    for text in ("Landmark 3 does not move", "is hardly better than the mean shape's 7.0 %", "there are only 7 images"):
        assert text.lower() in card.lower()
    assert len(figures["warnings"]) == 3
    assert "secret" not in card


def test_without_its_dataset_a_run_has_a_card_without_a_picture(noise_run, tmp_path):
    os.rename(noise_run.config.dataset, tmp_path / "gone")
    figures, card = written(noise_run, tmp_path / "shared")
    assert figures["files"].keys() == {"model.safetensors", "config.json", "README.md"}
    assert "| data set | not stated |" in card
    with pytest.raises(DataError, match="the data set is not there, and its images are wanted"):
        written(noise_run, tmp_path / "other", with_images=True)


def test_a_folder_is_written_again_but_nothing_else_is_overwritten(noise_run, tmp_path):
    first, _ = written(noise_run, tmp_path / "shared", with_images=True)
    second, card = written(noise_run, tmp_path / "shared")
    assert first["files"].keys() - second["files"].keys() == {"examples.png"}
    assert not (tmp_path / "shared" / "examples.png").exists()
    assert "examples.png" not in card
    for name in ("thesis.docx", "README.md"):
        folder = tmp_path / f"with_{name}"
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(StorageError, match=f"holds {name}, which `kplm push` did not write"):
            written(noise_run, folder)
        assert (folder / name).read_text() == "mine"


def test_a_detector_of_rendered_images_goes_to_folders_only(noise_run, tmp_path, monkeypatch, capsys):
    describe_dataset(noise_run, licence=LICENCE)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    shared = str(tmp_path / "shared")
    assert main(["push", noise_run.folder.path, "me/noise", "--folder", shared, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["synthetic"]
    front = yaml.safe_load((tmp_path / "shared" / "README.md").read_text().split("---\n")[1])
    assert "synthetic" in front["tags"]
    assert is_synthetic(open_detector(shared))
    for source in (noise_run.folder.path, shared):
        assert main(["push", source, "me/noise"]) == ConfigError.exit_code
        error = capsys.readouterr().err.splitlines()[-1]
        assert "was trained on rendered images" in error
        assert "--folder DIR" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "push: name the model on the hub, user/name, or a folder to write"),
        (["noise"], "'noise': is no name on a model hub"),
        (["a/b/c", "--folder", "x"], "'a/b/c': is no name on a model hub"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_done(noise_run, tmp_path, words, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["push", noise_run.folder.path, *words]) == ConfigError.exit_code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_options_that_do_not_apply_to_a_written_folder_are_refused(noise_run, tmp_path, monkeypatch, capsys):
    written(noise_run, tmp_path / "shared")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    for options in (
        ["--folder", str(tmp_path / "other")],
        ["me/noise", "--with-images"],
        ["me/noise", "--license", "mit"],
    ):
        assert main(["push", str(tmp_path / "shared"), *options]) == ConfigError.exit_code
    assert "is such a folder already" in capsys.readouterr().err
