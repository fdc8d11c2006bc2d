"""Scoring a finished run whose predictions are on storage: it needs no Ray, and says what is wrong before it predicts."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest
import ray

from ray_kplm import schemas
from ray_kplm.analysis import predictions as module
from ray_kplm.analysis.contact_sheet import picture_name, show
from ray_kplm.analysis.evaluate import Options, evaluate
from ray_kplm.cli.main import main
from ray_kplm.config import from_dict, load_config, with_overrides
from ray_kplm.datasets.dataset import Dataset, PartBuilder
from ray_kplm.errors import ConfigError, DataError, RunError
from ray_kplm.evaluation.protocols import PROTOCOLS
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import KEYPOINT, TITLE_HEIGHT, encode_png
from ray_kplm.inference.dataset import read_predictions
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.run import Run
from ray_kplm.storage import Folder

NAMES = list(PROTOCOLS["human36m"].points)
TRUE_POINTS = ["keypoints.detector=noisy_gt", "keypoints.truth_share=1", "keypoints.truth_shift=0"]
COUNTS = {"train": 60, "test": 30}
HIDDEN = NAMES.index("left_wrist")
SHAPE = np.random.default_rng(9).uniform(20, 108, size=(len(NAMES), 2))


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))


def bodies(split, seed):
    """(N, 13, 2): one shape that moves and grows in crops of 128 px."""
    rng = np.random.default_rng([seed, len(split)])
    count = COUNTS[split]
    grown = 64 + (1 + 0.1 * rng.normal(size=(count, 1, 1))) * (SHAPE - 64)
    return grown + rng.normal(scale=3, size=(count, 1, 2))


def make_dataset(path, seed=0, names=NAMES, name="bodies", splits=("train", "test")):
    root = Folder.at(path)
    root.write_json("dataset.json", {"name": name, "landmark_names": names, "nme": {"type": "bbox_sqrt"}})
    table = {}
    for split in ("train", "test"):
        part, points = PartBuilder(len(names)), bodies(split, seed)
        count = len(points) if split in splits else 0
        for i in range(count):
            annotation = {
                "landmarks": points[i].tolist(),
                "visible": [j != HIDDEN or i % 2 == 0 for j in range(len(NAMES))],
                "yaw": -90 + 6.0 * i,
            }
            box = np.array([10.0, 10.0, 110.0, 110.0])
            image = np.zeros((128, 128, 3), np.uint8)
            part.add(f"{split}/{i}", encode_png(image), image, box, coordinates.translation(0, 0), annotation)
        tables = part.tables()
        (root / split / "images").write_table("part-00000.parquet", tables.images)
        (root / split / "landmarks").write_table("part-00000.parquet", tables.landmarks)
        table[split] = {"images": count, "parts": ["part-00000.parquet"], "rows": [count]}
    manifest = {"kind": "dataset", "fingerprint": f"{name}{seed}" * 8, "splits": table, "landmarks": len(names)}
    root.write_json("manifest.json", manifest)
    return Dataset.open(root)


def add_predictions(run, dataset, seed=0, probability=None):
    """What the detector says: the points, off by a pixel or so, in another order; and their probability by image and point."""
    rng = np.random.default_rng(1)
    for prediction in module._predictions(run, dataset, STAGE2, ("train", "test")):
        xy = bodies(prediction.split, seed)[:, ::-1] + rng.normal(size=(COUNTS[prediction.split], len(NAMES), 2))
        rows = [
            {
                "image_id": f"{prediction.split}/{i}",
                "xy": points.tolist(),
                "confidence": [0.9] * len(NAMES),
                "probability": probability and [probability(i, j) for j in reversed(range(len(NAMES)))],
            }
            for i, points in enumerate(xy.astype(np.float32))
        ]
        prediction.step.begin()
        prediction.step.folder.write_table("part-00000.parquet", pa.Table.from_pylist(rows, schema=schemas.PREDICTIONS))
        prediction.step.finish(images=len(rows))


@pytest.fixture
def run(tmp_path):
    """A finished run of chapter 4, whose only stage that predicts is the last."""
    dataset = make_dataset(tmp_path / "dataset")
    config = load_config(
        None, ["method.kind=template", "stage1.rounds=0", f"dataset={tmp_path / 'dataset'}", f"run={tmp_path / 'run'}"]
    )
    run = Run.start(config)
    run.save()
    channels = Channels.first(np.ones(len(NAMES), bool))
    (run.folder / "stage2").write_json(CHANNELS, channels.to_dict())
    run.step("stage2", "train", {}, {}).finish()
    add_predictions(run, dataset)
    return run


def written(run, place="evaluation"):
    return (run.folder / place).read_json("metrics.json")


def test_metrics_hold_what_a_report_needs(run):
    metrics = evaluate(run)
    assert written(run) == json.loads(json.dumps(metrics, allow_nan=False))
    assert metrics["per_image"]["image_id"] == [f"test/{i}" for i in range(30)]
    errors = metrics["per_image"]["forward_nme"]
    assert len(errors) == 30
    assert np.mean(errors) == pytest.approx(metrics["forward_nme"])
    assert 0 < metrics["forward_nme"] < 3 < metrics["mean_shape_nme"]
    assert metrics["curves"]["forward"][-1] == pytest.approx(metrics["forward_nme"])
    assert len(metrics["backward_per_landmark"]) == len(metrics["forward_per_landmark"]) == 13
    assert metrics["raw"]["landmark_of_point"] == list(range(12, -1, -1))
    assert metrics["raw"]["accuracy"]["12"] == 100
    assert metrics["points"] == {"annotated": 390, "hidden": 15, "scored": 390, "not_annotated": 0}
    assert metrics["forward_by_images"]["1000"]["images"] == 60
    assert metrics["oks"]["AP_0.5"] == pytest.approx(1)
    assert (metrics["protocol"], metrics["buckets"]) == (None, {})


def test_generic_keypoints_are_measured_against_the_annotation(run):
    assert evaluate(run)["generic_keypoints"]["near_percent"] is None  # there are none
    off = np.array([0.07 * 100, 0.09 * 100] * 7)[:13, None]  # of boxes of 100 px: seven near, six not
    rows = [{"image_id": f"train/{i}", "xy": [[5 + x, 5.0] for x in off[:, 0]]} for i in range(60)]
    folder = run.folder / "keypoints"
    folder.write_table("part-00000.parquet", pa.Table.from_pylist(rows))
    landmarks = Dataset.open(run.config.dataset).landmarks("train")
    points = np.full((len(NAMES), 2), np.nan, np.float32)
    points[0] = 5
    table = landmarks.read_table("part-00000.parquet")
    given = pa.array([points.tolist()] * 60, table.schema.field("landmarks").type)
    index = table.schema.get_field_index("landmarks")
    landmarks.write_table("part-00000.parquet", table.set_column(index, table.schema.field("landmarks"), given))
    found = evaluate(run)["generic_keypoints"]
    assert found == {
        "detector": "sift",
        "images": 60,
        "points_per_image": 13,
        "near_percent": pytest.approx(100 * 7 / 13),
    }


def test_hidden_points_are_scored_unless_left_out(run):
    metrics = evaluate(run, options=Options(visible_only=True))
    assert metrics["points"]["scored"] == 375
    assert metrics["visible_only"]
    assert metrics["left_out"]["forward_points"] == 15


def test_probabilities_are_scored_by_the_visibility_of_the_nearest_point(run):
    assert evaluate(run)["visibility"] is None  # the detector gives none
    dataset = Dataset.open(run.config.dataset)
    (run.folder / "evaluation").delete()
    hidden = lambda i, j: j == HIDDEN and i % 2 == 1  # noqa: E731
    add_predictions(run, dataset, probability=lambda i, j: 0.25 if hidden(i, j) else 0.75)
    scores = evaluate(run)["visibility"]
    assert scores["point_of_landmark"] == list(range(12, -1, -1))
    assert (scores["hidden"], scores["pairs"]) == (15, 390)
    assert scores["auc"] == scores["auc_mean"] == 1
    assert scores["ece"] == pytest.approx(0.25)
    assert scores["brier"] == pytest.approx(0.0625)
    assert [k for k, value in enumerate(scores["auc_per_landmark"]) if value is not None] == [12 - HIDDEN]


def test_landmarks_that_earlier_versions_stored_have_no_probability(run):
    dataset = Dataset.open(run.config.dataset)
    folder = run.folder / "evaluation/stage2/test"
    table = folder.read_table("part-00000.parquet")
    folder.write_table("part-00000.parquet", table.drop_columns(["probability"]))
    old = read_predictions(folder, dataset, "test")
    assert old.xy.shape == (30, 13, 2)
    assert np.isnan(old.probability).all()


def test_errors_are_reported_by_ranges_of_a_column(run):
    metrics = evaluate(run, options=Options(by=("yaw=-90,0,84", "|yaw|=0,30")))
    ranges = metrics["buckets"]["yaw"]["ranges"]
    assert [found["images"] for found in ranges.values()] == [15, 15]
    halves = [np.mean(metrics["per_image"]["forward_nme"][half]) for half in (slice(15), slice(15, None))]
    assert [found["forward_nme"] for found in ranges.values()] == pytest.approx(halves)
    assert metrics["buckets"]["|yaw|"]["images_in_none"] == 30 - 11


def test_a_protocol_adds_its_scores_and_keeps_the_others(run):
    plain = evaluate(run)
    metrics = evaluate(run, options=Options(protocol="human36m"))
    assert metrics["forward_nme"] == plain["forward_nme"]
    figures = metrics["protocol"]["figures"]
    assert figures["raw_accuracy/average"] == figures["pck/Knees"] == 100
    assert figures["oks/AP_0.5"] == pytest.approx(1)
    assert figures["forward_nme/all"] != pytest.approx(metrics["forward_nme_all"])  # another normaliser
    assert [row["method"] for row in metrics["protocol"]["published"]] == ["chapter 6", "chapter 5", "Zhang", "Jakab"]


def test_another_dataset_has_a_folder_of_its_own(run, tmp_path):
    other = make_dataset(tmp_path / "other", seed=4, name="other one")
    add_predictions(run, other, seed=4)
    own = evaluate(run)
    metrics = evaluate(run, options=Options(data=str(tmp_path / "other")))
    assert metrics["dataset"]["name"] == "other one"
    assert metrics["forward_nme"] != own["forward_nme"]
    assert written(run, "evaluation/on/other_one-other on")["dataset"]["name"] == "other one"
    assert written(run) == json.loads(json.dumps(own))
    again = make_dataset(tmp_path / "copy")  # the run's own dataset in another place
    assert evaluate(run, options=Options(data=str(again.root)))["forward_nme"] == own["forward_nme"]
    assert (run.folder / "evaluation" / "on").folders() == ["other_one-other on"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(protocol="mafl"), "no landmark left_eye, right_eye, nose"),
        (Options(protocol="nothing"), "no such protocol"),
        (Options(by=("roll=0,1",)), "no column 'roll' of numbers; it has yaw"),
        (Options(by=("yaw=5",)), "increasing numbers"),
    ],
)
def test_invalid_options_are_reported_before_anything_is_predicted(run, options, words, tmp_path):
    other = make_dataset(tmp_path / "other", seed=4, name="other")  # without predictions: to make them takes Ray
    with pytest.raises((ConfigError, DataError), match=words):
        evaluate(run, options=Options(**{**vars(options), "data": str(other.root)}))


@pytest.mark.parametrize(
    ("left", "words"), [("train", "no test images to score on"), ("test", "no train images to fit")]
)
def test_a_dataset_without_one_of_the_splits_is_refused(run, tmp_path, left, words):
    make_dataset(tmp_path / "other", seed=4, splits=(left,))
    with pytest.raises(DataError, match=words):
        evaluate(run, options=Options(data=str(tmp_path / "other")))


def test_oks_without_pycocotools_is_refused_with_the_way_to_install_it(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"ray-kplm\[coco\]"):
        evaluate(run, options=Options(protocol="human36m"))
    assert evaluate(run)["oks"] is None  # not asked for


def test_the_command_prints_a_table_and_takes_both_forms(run, capsys):
    path = str(run.folder)
    command = ["evaluate", path, "--protocol", "human36m", "--by", "yaw=-90,0,84"]
    assert main(command) == 0
    text = capsys.readouterr().out
    for words in (
        "forward NME",
        "backward NME of each landmark",
        "-90 to 0",
        "protocol human36m",
        "thesis, Table 6.11",
    ):
        assert words in text, words
    assert max(map(len, text.splitlines())) < 200
    assert main([*command, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)  # and nothing else
    assert "per_image" not in scores
    assert scores["protocol"]["figures"]["raw_accuracy/Head"] == 100
    assert main(["evaluate", "--model", path, "--data", run.config.dataset]) == 0
    assert f"{scores['forward_nme']:.2f} %" in capsys.readouterr().out
    assert main(["evaluate", path, "--model", path]) == 2
    assert main(["evaluate"]) == 2
    assert capsys.readouterr().err.count("name one run directory, as RUN or as --model RUN") == 2


def test_show_pictures_landmarks_and_on_demand_the_generic_keypoints_above_them(run):
    run = replace(run, config=from_dict(with_overrides(run.config.to_dict(), TRUE_POINTS)))
    run.step("keypoints", "keypoints", {}, {}).finish()
    without = cv2.imdecode(np.frombuffer(show(run, count=4, tile=128), np.uint8), cv2.IMREAD_COLOR)
    with_keypoints = cv2.imdecode(
        np.frombuffer(show(run, count=4, tile=128, keypoints=True), np.uint8), cv2.IMREAD_COLOR
    )
    assert len(with_keypoints) == len(without) + 128
    top = len(with_keypoints) - len(without) + TITLE_HEIGHT
    np.testing.assert_array_equal(with_keypoints[top:], without[TITLE_HEIGHT:])
    rows = np.sort(np.random.default_rng(run.config.seed).permutation(COUNTS["test"])[:4])
    for i, points in enumerate(bodies("test", 0)[rows]):
        tile = with_keypoints[TITLE_HEIGHT:top, i * 128 : (i + 1) * 128, ::-1]
        yellow = np.argwhere((tile == KEYPOINT).all(axis=2))[:, ::-1]
        assert np.linalg.norm(points[:, None] - yellow, axis=2).min(axis=1).max() < 3
        assert np.linalg.norm(points[:, None] - yellow, axis=2).min(axis=0).max() < 3
    evaluation = run.folder / "evaluation"
    assert evaluation.is_file(picture_name("test"))
    assert evaluation.is_file(picture_name("test", keypoints=True))


def test_show_with_keypoints_needs_a_run_that_has_begun_with_some(run):
    with pytest.raises(RunError, match="keypoints is not finished"):
        show(run, keypoints=True)
