"""Whole runs of each kind of method, from images to scores, with networks that train in seconds.

Their landmarks are poor; `tests/e2e/test_learning.py` tests how good landmarks become.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_kplm import LandmarkDetector
from ray_kplm.analysis.evaluate import evaluate
from ray_kplm.analysis.label_free import measurable, measure_quality
from ray_kplm.analysis.predictions import landmarks_of
from ray_kplm.analysis.report import report
from ray_kplm.analysis.template_picture import template_picture
from ray_kplm.bench import label_free as bench
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.landmark_arrays import landmark_arrays
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.evaluation.annotation import Scoring, annotated_set
from ray_kplm.evaluation.summary import evaluate_landmarks
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.labels import landmark_labels
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.pipeline import discover
from ray_kplm.progress import ignore_progress
from ray_kplm.steps.fork import fork_best

ROUNDS = {"rounds/000/train", "rounds/000/labels", "rounds/001/train", "rounds/001/labels"}
MERGE = [
    "method.kind=merge", "merging.every=75", "merging.min_points=5", "merging.confidence=0.0001", "merging.distance=2",
    "merging.overlap=0.5",
]  # fmt: skip
TEMPLATE = [
    "method.kind=template", "stage1.rounds=0", "template.rounds=2", "template.distil_from=0", "template.min_matched=0.3",
    "template.confidence=0.0001", "template.distance=0.2", "template.candidates=5", "template.sample=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def configured(small_dataset, small_config):
    """The small configuration of a run with some overrides."""
    fixed = [*small_config, "stage2.iterations=150", "stage2.backbone_factor=1", f"dataset={small_dataset.root}"]
    return lambda run, *overrides: load_config(None, [*fixed, f"run={run}", *overrides])


@pytest.fixture(scope="module")
def kplm_run(configured, tmp_path_factory):
    return discover(configured(tmp_path_factory.mktemp("kplm") / "run"))[0]


@pytest.fixture(scope="module")
def merge_run(configured, tmp_path_factory):
    return discover(configured(tmp_path_factory.mktemp("merge") / "run", *MERGE))[0]


@pytest.fixture(scope="module")
def template_run(configured, tmp_path_factory):
    return discover(configured(tmp_path_factory.mktemp("template") / "run", *TEMPLATE))[0]


@pytest.fixture(scope="module")
def joint_run(configured, tmp_path_factory):
    return discover(configured(tmp_path_factory.mktemp("joint") / "run", "stage2.training=joint", "compute.workers=2"))[
        0
    ]


@pytest.fixture(scope="module")
def template_scores(template_run):
    return evaluate(template_run)


def finished_steps(run) -> set[str]:
    """The paths of all finished steps but those that read a finished run."""
    root = Path(run.folder.path)
    paths = {str(path.parent.relative_to(root)) for path in root.rglob("manifest.json")}
    return {path for path in paths if not path.startswith("evaluation")}


def channels_of(run, step: str) -> dict:
    return (run.folder / step).read_json("channels.json")


def assert_landmarks_are_near_the_labels(run, labels: str) -> None:
    """The landmarks of training images must be nearer to their own pseudo-labels than to those of images shifted by any number.

    It is a permutation test: of landmarks in another frame, in another order, or of an untrained network, the true shift is the
    nearest one of all with a chance of one in the number of images. labels: the step whose labels stage 2 was trained on.
    """
    dataset = Dataset.open(run.config.dataset)
    channels = Channels.from_dict(channels_of(run, "stage2"))
    wanted = landmark_labels((run.folder / labels).read_tables(dataset.parts("train")), channels)
    xy = landmarks_of(run, dataset, "train").xy
    own, *others = (
        np.median(np.linalg.norm(xy - np.roll(wanted.xy, by, axis=0), axis=-1)[np.roll(wanted.present, by, axis=0)])
        for by in range(len(xy))
    )
    assert len(others) > 30
    assert own < min(others)


def assert_scores_are_those_of_the_detector(run, scores: dict) -> None:
    """`evaluate` must score what the published detector finds: another computation from the images gives the same error."""
    dataset, detector = Dataset.open(run.config.dataset), LandmarkDetector.load(run.folder.path)
    sets = []
    for split in ("train", "test"):
        tables = dataset.images(split).read_tables(dataset.parts(split), ["image"])
        images = [decode_crop(encoded) for table in tables for encoded in table["image"]]
        found = np.stack([one.xy for one in detector.predict(images)]).astype(np.float64)
        annotated = annotated_set(landmark_arrays(dataset, split), Scoring(dataset.meta["nme"]))
        sets.append(replace(annotated, discovered=found))
    again = evaluate_landmarks(*sets, seed=run.config.seed)
    for name in ("forward_nme", "backward_nme"):
        assert scores[name] == pytest.approx(again[name], rel=1e-3)
    assert scores["landmarks"] == len(channels_of(run, "stage2")["names"])


def test_kplm_runs_rounds_and_then_stage_2(kplm_run):
    assert finished_steps(kplm_run) == {"keypoints", *ROUNDS, "stage2", "visibility"}


def test_kplm_landmarks_are_near_the_labels_of_the_last_round(kplm_run):
    assert_landmarks_are_near_the_labels(kplm_run, "rounds/001/labels")


def test_scores_of_kplm_are_those_of_its_detector(kplm_run):
    assert_scores_are_those_of_the_detector(kplm_run, evaluate(kplm_run))


class Interrupted(Exception):
    """Raised after a round, in place of a signal."""


def test_a_run_interrupted_after_a_round_ends_with_the_network_of_an_uninterrupted_one(kplm_run, configured, tmp_path):
    def interrupt(*arguments):
        raise Interrupted

    config = configured(tmp_path / "run")
    with pytest.raises(Interrupted):
        discover(config, after_round=interrupt)
    resumed, worked = discover(config)
    assert worked
    expected = (kplm_run.folder / "stage2").read_bytes(NETWORK)
    assert (resumed.folder / "stage2").read_bytes(NETWORK) == expected
    assert discover(config)[1] is False, "a finished run was run again"


def test_merge_labels_by_clusters_and_merges_channels_in_stage_2(merge_run):
    steps = {"keypoints", "keypoints/clustered/labels", *ROUNDS, "stage2/000/train", "stage2/000/merge", "stage2"}
    steps.add("visibility")
    assert finished_steps(merge_run) == steps


def test_merge_finds_the_number_of_its_landmarks(merge_run):
    first, last = channels_of(merge_run, "stage2/000/train"), channels_of(merge_run, "stage2")
    merge = merge_run.manifest("stage2/000/merge")
    assert first["channels"] == merge["channels_before"] >= last["channels"] == merge["channels"] >= 2
    assert len(last["history"]) == first["channels"] - last["channels"]
    assert set(last["names"]) == set(first["names"]) - {merged["channel"] for merged in last["history"]}


def test_merge_landmarks_are_near_the_labels_of_the_last_round(merge_run):
    assert_landmarks_are_near_the_labels(merge_run, "rounds/001/labels")


def test_scores_of_merge_are_those_of_its_detector(merge_run):
    assert_scores_are_those_of_the_detector(merge_run, evaluate(merge_run))


@pytest.mark.slow
def test_the_quality_of_a_round_of_merge_is_that_of_its_clusters(merge_run):
    quality = measure_quality(merge_run, "1", images=20)
    assert len(quality["compactness_per_landmark"]) == 12  # M clusters, before any channel
    assert quality["partners"] == [-1] * 12
    assert quality["flip_error"] is None


@pytest.mark.slow
def test_the_report_of_merge_shows_every_channel_and_every_merged_pair(merge_run):
    page = Path(report(merge_run, images=6)).read_text()
    last = channels_of(merge_run, "stage2")
    assert page.count('class="card"') == last["channels"]
    assert page.count('class="shot"') == 6
    assert page.count('class="pair"') == len(last["history"])
    assert "After the warm-up" in page
    assert "After round 1" in page


def test_template_labels_keypoints_by_a_template(template_run):
    assert finished_steps(template_run) == {
        "keypoints", "rounds/000/train", "rounds/000/labels", "template/labels", "stage2/000/train", "stage2/000/labels",
        "stage2", "visibility",
    }  # fmt: skip
    template = (template_run.folder / "template" / "labels").read_json("template.json")
    assert channels_of(template_run, "stage2")["channels"] == len(template["xy"]) == 5


def test_matched_points_of_the_template_are_keypoints_of_their_image(template_run):
    """A label of score 1 is a keypoint of the image, one of score 0 is a point of the template moved there."""
    matched = 0
    for part in (template_run.folder / "template" / "labels").parts():
        labels = (template_run.folder / "template" / "labels").read_table(part).to_pylist()
        keypoints = (template_run.folder / "rounds" / "000" / "labels").read_table(part).to_pylist()
        for label, keypoint in zip(labels, keypoints, strict=True):
            assert label["image_id"] == keypoint["image_id"]
            for xy, score in zip(label["xy"], label["score"], strict=True):
                near = np.linalg.norm(np.reshape(keypoint["xy"], (-1, 2)) - xy, axis=1).min(initial=np.inf) < 0.01
                assert near or not score
                matched += near
    assert matched > 0


def test_scores_of_template_are_those_of_its_detector(template_run, template_scores):
    assert_scores_are_those_of_the_detector(template_run, template_scores)


def test_template_has_scores_and_quality_of_stage_2_alone(template_run, template_scores):
    assert "stage1_forward_nme" not in template_scores
    json.dumps(template_scores, allow_nan=False)
    assert measurable(template_run) == ["stage2"]
    with pytest.raises(RunError, match=r"method\.kind = 'template' have keypoints but no landmarks"):
        measure_quality(template_run, "0")


@pytest.mark.slow
def test_the_report_of_template_has_no_map_of_descriptors(template_run, template_scores):
    page = Path(report(template_run)).read_text()
    assert page.count('class="card"') == template_scores["landmarks"]
    assert "t-SNE" not in page  # this kind has no descriptors


def test_the_template_is_drawn_and_another_image_can_be_named(template_run, configured, tmp_path):
    name, png = template_picture(template_run)
    assert name == (template_run.folder / "template" / "labels").read_json("template.json")["image_id"]
    assert png.startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"'nobody': no such image .* for example ") as caught:
        template_picture(template_run, "nobody")
    other = str(caught.value).split("for example ")[1].strip("'")
    assert template_picture(template_run, other)[0] == other
    taken = fork_best([template_run], configured(tmp_path / "fork", *TEMPLATE, f"template.image={other}"))
    assert "rounds/000/labels" in taken
    assert "template/labels" not in taken


@pytest.mark.slow
def test_a_joint_run_has_its_detector_after_the_rounds(joint_run):
    assert finished_steps(joint_run) == {"keypoints", *ROUNDS, "stage2", "visibility"}
    assert_scores_are_those_of_the_detector(joint_run, evaluate(joint_run))
    with pytest.raises(RunError, match="has no template"):
        template_picture(joint_run)


@pytest.mark.slow
def test_quality_is_measured_once_for_the_same_options(kplm_run):
    messages = []

    def note(share, text):
        if "views of each" in text:
            messages.append(text)

    first = measure_quality(kplm_run, images=20, progress=note)
    assert measure_quality(kplm_run, images=20, progress=note) == first
    assert len(messages) == 1
    assert (kplm_run.folder / "evaluation").read_json("quality.json") == first
    assert measure_quality(kplm_run, images=10, progress=note)["images"] == 10
    assert len(messages) == 2


@pytest.mark.slow
def test_quality_has_a_figure_for_each_landmark(kplm_run):
    quality = measure_quality(kplm_run, images=20)
    assert quality["images"] == 20
    assert quality["landmarks"] == len(quality["equivariance_per_landmark"]) == len(quality["partners"]) == 5
    assert quality["cluster_compactness"] is None
    assert quality["equivariance_error"] == pytest.approx(np.mean(quality["equivariance_per_landmark"]))
    assert all(isinstance(text, str) for text in quality["warnings"])


@pytest.mark.slow
def test_quality_of_an_unknown_or_unfinished_stage_is_refused(kplm_run):
    for stage in ("2", "round"):
        with pytest.raises((RunError, ConfigError)):
            measure_quality(kplm_run, stage)


@pytest.mark.slow
def test_quality_of_all_stages_is_set_beside_their_scores(kplm_run):
    scores = evaluate(kplm_run)
    assert measurable(kplm_run) == ["0", "1", "stage2"]
    found = bench.bench([str(kplm_run.folder)], ignore_progress)
    assert [row["stage"] for row in found["checkpoints"]] == ["0", "1", "stage2"]
    assert found["checkpoints"][2]["forward_nme"] == scores["forward_nme"]
    assert found["checkpoints"][1]["forward_nme"] == scores["stage1_forward_nme"]
    assert (kplm_run.folder / "evaluation").read_json("quality_001.json")["cluster_compactness"] > 0
    correlations = [row for measures in found["correlations"].values() for row in measures.values()]
    assert all(row["spearman"] is None for row in correlations)  # three checkpoints are too few
    json.dumps(found, allow_nan=False)
    assert len(bench.lines(found)) >= 7
