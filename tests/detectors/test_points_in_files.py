"""Files, folders and folders to share find the points of a run as the run does, and say their names, partners and edges."""

import json
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

from ray_kplm.cli.main import main
from ray_kplm.detectors.detector_files import DetectorFiles, is_exported
from ray_kplm.detectors.export_file import MAX_DIFFERENCE, export_file
from ray_kplm.detectors.file_run import file_run
from ray_kplm.detectors.stored import detector_fingerprint, export, export_pretrained, write_detector
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.inference.images import PredictOptions, predict_images
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, LANDMARKS, point_folder, write_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder

K = 4
HEAD = Layout("", ("left", "right", "tip"), (1, 0, 2), ((0, 2),))


@pytest.fixture(scope="module")
def runs(finished_run, untrained_run, point_sets, tmp_path_factory) -> dict[str, Run]:
    """A plain run and one of a category seen from the side, with points: edited, fitted, and with a network of their own."""
    folder = tmp_path_factory.mktemp("points")
    made = {name: finished_run(folder / name, "network.depth=1", faces=name == "faces") for name in ("plain", "faces")}
    identity = PointSet.of_groups(HEAD, [[0], [1], [2]], len(HEAD))
    other = untrained_run(folder / "head", len(HEAD), "network.depth=1", seed=9, partners=[1, 0, -1])
    state = (other.folder / "stage2").read_bytes(NETWORK)
    for run in made.values():
        for name, points in point_sets(K).items():
            write_point_set(point_folder(run.folder, name), points)
        head = point_folder(run.folder, "head")
        write_detector(run, head, state, DetectorFiles.of(other).channels(), None, "0123", identity)
    return made


@pytest.fixture
def images(picture):
    return [picture(seed) for seed in range(6)]


def load(run: Run, name: str | None = None) -> LandmarkDetector:
    return LandmarkDetector.load(run.folder.path, device="cpu", points=name)


def assert_same(found, expected, pixels: float = 0.0) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.xy, other.xy, atol=pixels, rtol=0)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=pixels / 100, rtol=0)
        np.testing.assert_allclose(one.probability, other.probability, atol=pixels / 10, rtol=0)
        assert (one.facing is None) == (other.facing is None)


def exported_file(run: Run, path, name: str) -> LandmarkDetector:
    report = export_file(run, path, "onnx" if path.suffix == ".onnx" else "torch", points=name)
    assert report.max_difference <= MAX_DIFFERENCE
    return LandmarkDetector.load(path)


HEAD_FILE = pytest.param("faces", "head", marks=pytest.mark.slow)


@pytest.mark.parametrize(("kind", "name"), [("plain", "fitted"), ("faces", "edited"), HEAD_FILE])
def test_an_onnx_file_finds_the_points_of_the_run(runs, kind, name, images, tmp_path):
    expected = load(runs[kind], name)
    found = exported_file(runs[kind], tmp_path / "a.onnx", name)
    assert (found.names, found.layout.partners) == (expected.names, expected.layout.partners)
    assert found.layout.skeleton == expected.layout.skeleton  # a run without its dataset has no images to derive one of
    assert_same(found.predict(images), expected.predict(images), MAX_DIFFERENCE / 10)
    facings = [one.facing for one in expected.predict(images)]
    assert kind == "plain" or min(facings) < 0 < max(facings)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("plain", "edited"), ("faces", "edited"), ("plain", "fitted")])
def test_a_program_of_pytorch_finds_the_points_of_the_run(runs, kind, name, images, tmp_path):
    found = exported_file(runs[kind], tmp_path / "a.pt2", name)
    assert_same(found.predict(images), load(runs[kind], name).predict(images), MAX_DIFFERENCE / 10)


def test_a_file_says_what_it_finds_and_predictions_of_it_have_the_names(runs, images, tmp_path):
    file = tmp_path / "a.onnx"
    assert main(["export", runs["plain"].folder.path, str(file)]) == 0  # an edit is what outputs have by default
    texts = {one.key: json.loads(one.value) for one in onnx.load(file).metadata_props if one.value.startswith("[")}
    assert texts == {
        "names": ["nose", "left eye", "right eye"], "flip_map": [-1, 2, 1], "skeleton": [[0, 1], [0, 2]],
    }  # fmt: skip
    assert_same(LandmarkDetector.load(file).predict(images), load(runs["plain"]).predict(images), MAX_DIFFERENCE / 10)
    (tmp_path / "photos").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "photos" / "a.png")
    predict_images(file_run(str(file)), tmp_path / "photos", tmp_path / "out", PredictOptions(coco=True))
    (category,) = json.loads((tmp_path / "out" / "coco.json").read_text())["categories"]
    assert category["keypoints"] == texts["names"]
    assert category["skeleton"] == [[1, 2], [1, 3]]
    with pytest.raises(ConfigError, match="points='fitted' was decided"):
        LandmarkDetector.load(file, points="fitted")


@pytest.mark.parametrize("name", ["edited", "fitted", "head", LANDMARKS])
@pytest.mark.parametrize("kind", ["plain", "faces"])
def test_folders_find_the_points_of_the_run_bit_for_bit(runs, kind, name, images, tmp_path):
    run, expected = runs[kind], load(runs[kind], name)
    export(run, Folder.at(tmp_path / "exported"), name)
    exported = Run.open(tmp_path / "exported")
    export_pretrained(run, Folder.at(tmp_path / "of_run"), name)
    export_pretrained(exported, Folder.at(tmp_path / "of_exported"))
    for folder in ("exported", "of_run", "of_exported"):
        found = LandmarkDetector.from_pretrained(tmp_path / folder, device="cpu")
        assert found.layout == expected.layout
        assert_same(found.predict(images), expected.predict(images))
    plain = json.loads((tmp_path / "of_run" / "config.json").read_text())
    assert (plain["format_version"], plain["points"] is None) == ((1, True) if name == LANDMARKS else (2, False))


def test_an_edge_that_was_derived_is_kept_unless_the_points_have_their_own(runs, tmp_path):
    for name, expected in (("fitted", ((0, 1),)), ("edited", ((0, 1), (0, 2)))):
        export_pretrained(runs["plain"], Folder.at(tmp_path / name), name, ((0, 1),))
        assert LandmarkDetector.from_pretrained(tmp_path / name).layout.skeleton == expected


def test_an_exported_folder_forgets_the_points_that_it_had_before(runs, images, tmp_path):
    for name in ("edited", LANDMARKS):
        export(runs["plain"], Folder.at(tmp_path / "a"), name)
        found, expected = LandmarkDetector.load(tmp_path / "a", device="cpu"), load(runs["plain"], name)
        assert found.names == expected.names
        assert_same(found.predict(images), expected.predict(images))


def test_detectors_with_other_points_have_other_fingerprints(runs, point_sets, tmp_path):
    run = runs["plain"]
    of_run = {name: detector_fingerprint(run, name) for name in (EDITED, "fitted", "head", LANDMARKS)}
    assert len(set(of_run.values())) == 4
    assert detector_fingerprint(run) == of_run[EDITED]
    of_folders = set()
    for name in (EDITED, "fitted", LANDMARKS):
        export_pretrained(run, Folder.at(tmp_path / name), name)
        of_folders.add(LandmarkDetector.load(tmp_path / name).landmarks)
    assert of_folders == {3, 2, K}


def test_points_of_exported_detectors_cannot_be_chosen_any_more(runs, tmp_path, capsys):
    export(runs["plain"], Folder.at(tmp_path / "exported"), "fitted")
    export_pretrained(runs["plain"], Folder.at(tmp_path / "shared"), "fitted")
    for folder in ("exported", "shared"):
        for name in ("edited", LANDMARKS):
            with pytest.raises(DataError, match="whose points are those it has"):
                LandmarkDetector.load(tmp_path / folder, points=name)
    assert main(["export", runs["plain"].folder.path, str(tmp_path / "a.onnx"), "--points", "toes"]) == 3
    assert "it has landmarks, edited, fitted, head" in capsys.readouterr().err


def test_a_set_with_a_network_of_its_own_needs_no_network_of_the_run(runs, images, tmp_path):
    """The landmarks' network is not read for it."""
    folder = tmp_path / "run"
    shutil.copytree(runs["plain"].folder.path, folder)
    assert is_exported(point_folder(Folder.at(folder), "head"))
    (folder / "stage2" / "network.pt").write_bytes(b"lost")
    assert_same(load(Run.open(folder), "head").predict(images), load(runs["plain"], "head").predict(images))
