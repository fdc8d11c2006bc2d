"""A detector in a folder to share predicts exactly as the run's, and a damaged or foreign folder is one clear error."""

import json
import sys

import numpy as np
import pytest

from ray_kplm.cli import checks
from ray_kplm.detectors.pretrained_config import MODEL_CONFIG, WEIGHTS, open_detector
from ray_kplm.detectors.stored import detector_fingerprint, export, export_pretrained, landmark_predictor
from ray_kplm.errors import ConfigError, DamageError, DataError, RunError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import seal

K = 4
FIVE = PointSet.of_groups(Layout("", ("a",), (0,)), [[4]], 5).to_dict()


@pytest.fixture
def shared(run, tmp_path):
    export_pretrained(run, Folder.at(tmp_path / "shared"))
    return tmp_path / "shared"


@pytest.fixture
def images(picture):
    return [picture(seed) for seed in range(5)]


def assert_predicts_the_same(one: LandmarkDetector, other: LandmarkDetector, images) -> None:
    boxes = np.tile([4.0, 3.0, 50.0, 40.0], (5, 1))
    for found, expected in zip(
        one.predict(images) + one.predict(images, boxes),
        other.predict(images) + other.predict(images, boxes),
        strict=True,
    ):
        for name in ("xy", "confidence", "probability", "found"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert found.facing == expected.facing
        assert np.isfinite(found.probability).all()


@pytest.mark.parametrize("faces", [False, True])
def test_a_round_trip_gives_the_same_predictions_bit_for_bit(finished_run, images, tmp_path, faces):
    run = finished_run(tmp_path, faces=faces)
    expected = LandmarkDetector.load(run.folder.path, device="cpu")
    export(run, Folder.at(tmp_path / "exported"))
    for source, target in ((run, "of_run"), (Run.open(tmp_path / "exported"), "of_exported")):
        export_pretrained(source, Folder.at(tmp_path / target))
        for load in (LandmarkDetector.load, LandmarkDetector.from_pretrained):
            loaded = load(tmp_path / target, device="cpu")
            assert loaded.landmarks == K
            assert_predicts_the_same(loaded, expected, images)
    assert (expected.predict(images)[0].facing is not None) == faces
    assert sorted(path.name for path in (tmp_path / "of_run").iterdir()) == [MODEL_CONFIG, WEIGHTS]


def test_commands_take_such_a_folder(shared, run):
    opened = checks.detector(str(shared))
    assert opened.config.network == run.config.network
    assert len(detector_fingerprint(opened)) == 16
    assert landmark_predictor(opened).flip_map.tolist() == [1, 0, -1, -1]


def test_no_path_of_this_machine_is_in_the_files(shared, tmp_path):
    for path in shared.iterdir():
        assert str(tmp_path.parent).encode() not in path.read_bytes()
        assert b"nowhere" not in path.read_bytes()


def change(shared, **values) -> None:
    plain = json.loads((shared / MODEL_CONFIG).read_text())
    plain.update(values)
    (shared / MODEL_CONFIG).write_text(json.dumps(seal(plain)))


def cut(shared):
    (shared / WEIGHTS).write_bytes((shared / WEIGHTS).read_bytes()[:-100])


def flip_a_bit(shared):
    content = bytearray((shared / WEIGHTS).read_bytes())
    content[-50] ^= 1
    (shared / WEIGHTS).write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (cut, DamageError, "model.safetensors: is damaged, or of another detector"),
        (flip_a_bit, DamageError, "model.safetensors: is damaged, or of another detector"),
        (lambda s: (s / WEIGHTS).unlink(), DamageError, "model.safetensors: is missing"),
        (
            lambda s: (s / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"),
            DamageError,
            "git lfs pull",
        ),
        (lambda s: (s / MODEL_CONFIG).unlink(), DamageError, "config.json: is missing"),
        (lambda s: (s / MODEL_CONFIG).write_text("{"), DamageError, "config.json: is damaged"),
        (lambda s: (s / MODEL_CONFIG).write_text("[1]"), DamageError, "config.json: is no JSON object"),
        (
            lambda s: (s / MODEL_CONFIG).write_text(
                (s / MODEL_CONFIG).read_text().replace('"landmarks": 4', '"landmarks": 5')
            ),
            DamageError,
            "its content is not what was written",
        ),
        (lambda s: change(s, landmarks=5), DamageError, "it has not the 5 landmarks"),
        (lambda s: change(s, points={"names": ["a"]}), DamageError, "config.json: is damaged"),
        (lambda s: change(s, points=FIVE), DamageError, "its points are made of 5 landmarks, and it has 4"),
        (lambda s: change(s, format_version=3), RunError, "pip install --upgrade ray-kplm"),
        (lambda s: (s / MODEL_CONFIG).write_text('{"model_type": "bert"}'), DataError, "is of a model of bert, and no"),
        (lambda s: change(s, config={"network": {"hight": 3}}), ConfigError, "network.hight: unknown key"),
        (lambda s: change(s, visibility_features=["height"]), DamageError, "this version does not measure"),
    ],
)
def test_a_damaged_or_foreign_folder_is_one_clear_error(shared, harm, error, message):
    harm(shared)
    with pytest.raises(error, match=message) as raised:
        LandmarkDetector.from_pretrained(shared)
    assert "\n" not in str(raised.value)


def test_weights_of_another_kind_are_an_error_also_with_their_hash(shared):
    from ray_kplm.detectors.pretrained_config import weights_record

    (shared / WEIGHTS).write_bytes(b"no safetensors")
    change(shared, weights=weights_record(b"no safetensors"))
    with pytest.raises(DamageError, match=r"model\.safetensors: is damaged or of another kind"):
        LandmarkDetector.from_pretrained(shared)


def test_a_config_of_an_older_version_is_read(shared, images):
    """Keys that came later are missing, others had other names, nothing is sealed."""
    plain = json.loads((shared / MODEL_CONFIG).read_text())
    expected = LandmarkDetector.from_pretrained(shared, device="cpu")
    del (
        plain["sha256"],
        plain["versions"],
        plain["points"],
        plain["skeleton"],
        plain["config"]["stage2"]["joint_weight"],
    )
    plain["config"]["clustering"] = {"redos": 3}
    (shared / MODEL_CONFIG).write_text(json.dumps(plain))
    assert open_detector(str(shared)).config.clustering.n_init == 3
    assert_predicts_the_same(LandmarkDetector.from_pretrained(shared, device="cpu"), expected, images)


def test_a_detector_that_needs_a_file_of_this_machine_is_refused(finished_run, tmp_path):
    run = finished_run(tmp_path, f"features={tmp_path}")
    export_pretrained(run, Folder.at(tmp_path / "plain"))  # it does not look which way objects face
    made = finished_run(tmp_path / "other", faces=True)
    config = type(made.config)(**{**vars(made.config), "features": str(tmp_path)})
    with pytest.raises(ConfigError, match="a model in a file of this machine"):
        export_pretrained(Run(made.folder, config), Folder.at(tmp_path / "refused"))


def test_without_safetensors_the_error_is_one_line(shared, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ConfigError, match="the package safetensors is not installed: the extra hub brings it"):
        LandmarkDetector.from_pretrained(shared)
