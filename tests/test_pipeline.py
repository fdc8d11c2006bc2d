"""Generations other than the default, from images to scores, on small networks that are trained for seconds."""

import json
from pathlib import Path

import pytest

from ray_kplm.analysis.evaluate import evaluate
from ray_kplm.analysis.label_free import measurable, measure_quality
from ray_kplm.analysis.report import report
from ray_kplm.bench import label_free as bench
from ray_kplm.config import load
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.pipeline import discover
from ray_kplm.runtime import session
from ray_kplm.steps.align import picture
from ray_kplm.steps.fork import fork_best
from ray_kplm.steps.ingest import ingest

SMALL = [
    "network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=8",
    "keypoints.detector=orb", "keypoints.limit=20", "method.landmarks=5", "method.clusters=12",
    "detection.calibration_images=40", "stage1.batch_size=4", "stage1.warmup_iterations=20", "stage1.rounds=1",
    "stage1.round_iterations=10", "stage1.learning_rate=1e-3", "stage2.iterations=20", "stage2.batch_size=8",
    "stage2.learning_rate=1e-3", "compute.threads=1", "compute.rounds_per_fit=9",
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(ray_cluster, tmp_path_factory) -> str:
    session.configure_ray_data()
    folder = tmp_path_factory.mktemp("generations")
    write_category(folder / "source", 60, size=64)
    ingest(folder / "source", folder / "dataset", IngestOptions(part_images=24))
    return str(folder / "dataset")


def configured(dataset, run, *overrides):
    return load(None, [*SMALL, f"dataset={dataset}", f"run={run}", *overrides])


ROUNDS = {"rounds/000/train", "rounds/000/labels", "rounds/001/train", "rounds/001/labels"}
OTHERS = {"keypoints", "keypoints/clustered/labels", "template/labels", "stage2/000/train", "stage2/000/merge",
          "stage2/000/labels", "stage2"}  # fmt: skip


def finished(run) -> set[str]:
    return {step for step in ROUNDS | OTHERS if run.manifest(step)}


def test_chapter_5_finds_its_number_of_landmarks(dataset, tmp_path):
    config = configured(
        dataset, tmp_path / "run", "method.kind=merge", "merging.every=10", "merging.min_points=5",
        "merging.confidence=0.0001", "merging.distance=2", "merging.overlap=0.5",
    )  # fmt: skip
    run, worked = discover(config)
    assert worked
    assert finished(run) == {
        "keypoints",
        "keypoints/clustered/labels",
        *ROUNDS,
        "stage2/000/train",
        "stage2/000/merge",
        "stage2",
    }
    first = (run.folder / "stage2" / "000" / "train").read_json("channels.json")
    merge = run.manifest("stage2/000/merge")
    last = (run.folder / "stage2").read_json("channels.json")
    assert first["channels"] == merge["channels_before"] >= last["channels"] == merge["channels"] >= 2
    assert len(last["history"]) == first["channels"] - last["channels"]
    assert set(last["names"]) == set(first["names"]) - {merged["channel"] for merged in last["history"]}
    scores = evaluate(run)
    assert scores["landmarks"] == last["channels"]
    assert 0 < scores["forward_nme"] < 200
    assert 0 < scores["stage1_forward_nme"] < 200
    assert discover(config)[1] is False
    quality = measure_quality(run, "1", images=20)
    assert len(quality["compactness_per_landmark"]) == 12  # M clusters, before any channel
    assert quality["partners"] == [-1] * 12
    assert quality["flip_error"] is None

    page = Path(report(run, images=6)).read_text()
    assert page.count('class="card"') == last["channels"]
    assert page.count('class="shot"') == 6
    assert page.count('class="pair"') == len(last["history"])
    assert "After the warm-up" in page
    assert "After round 1" in page


def test_chapter_4_names_points_by_a_template(dataset, tmp_path):
    chapter4 = [
        "method.kind=template", "stage1.rounds=0", "template.rounds=2", "template.distil_from=0", "template.min_matched=0.3",
        "template.confidence=0.0001", "template.distance=0.2", "template.candidates=5", "template.sample=20",
    ]  # fmt: skip
    run, _ = discover(configured(dataset, tmp_path / "run", *chapter4))
    assert finished(run) == {
        "keypoints", "rounds/000/train", "rounds/000/labels", "template/labels", "stage2/000/train", "stage2/000/labels",
        "stage2",
    }  # fmt: skip
    chosen = (run.folder / "template" / "labels").read_json("template.json")
    assert (run.folder / "stage2").read_json("channels.json")["channels"] == len(chosen["xy"]) == 5
    scores = evaluate(run)
    assert scores["landmarks"] == len(chosen["xy"])
    assert 0 < scores["forward_nme"] < 200
    assert "stage1_forward_nme" not in scores
    assert measurable(run) == ["stage2"]
    with pytest.raises(RunError, match=r"method\.kind = 'template' have keypoints, no landmarks"):
        measure_quality(run, "0")
    json.dumps(scores, allow_nan=False)

    page = Path(report(run)).read_text()
    assert page.count('class="card"') == len(chosen["xy"])
    assert "t-SNE" not in page  # this generation has no descriptors

    name, png = picture(run)
    assert name == chosen["image_id"]
    assert png.startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"'nobody': no such image .* for example ") as caught:
        picture(run, "nobody")
    other = str(caught.value).split("for example ")[1].strip("'")
    assert picture(run, other)[0] == other
    taken = fork_best([run], configured(dataset, tmp_path / "other", *chapter4, f"template.image={other}"))
    assert "rounds/000/labels" in taken
    assert "template/labels" not in taken


def test_a_single_stage_has_its_detector_after_the_rounds(dataset, tmp_path):
    run, _ = discover(configured(dataset, tmp_path / "run", "stage2.training=joint", "compute.workers=2"))
    assert finished(run) == {"keypoints", *ROUNDS, "stage2"}
    scores = evaluate(run)
    assert scores["landmarks"] == 5
    assert 0 < scores["forward_nme"] < 200
    assert 0 < scores["stage1_forward_nme"] < 200
    with pytest.raises(RunError, match="has no template"):
        picture(run)
    check_quality(run, scores)


def check_quality(run, scores):
    """Stage 2 and rounds are measured, once for the same options, and set beside their scores."""
    assert measurable(run) == ["0", "1", "stage2"]
    said = []
    first = measure_quality(run, images=20, say=said.append)
    assert measure_quality(run, images=20, say=said.append) == first
    assert len(said) == 1
    assert (run.folder / "evaluation").read_json("quality.json") == first
    assert first["images"] == 20
    assert first["landmarks"] == len(first["equivariance_per_landmark"]) == len(first["partners"]) == 5
    assert first["cluster_compactness"] is None
    assert 0 < first["equivariance_error"] < 100
    assert first["score"] > 0
    assert all(isinstance(text, str) for text in first["warnings"])
    assert measure_quality(run, images=10, say=said.append)["images"] == 10
    assert len(said) == 2
    for stage in ("2", "round"):
        with pytest.raises((RunError, ConfigError)):
            measure_quality(run, stage)

    found = bench.bench([str(run.folder)], lambda text: None)
    assert [row["stage"] for row in found["checkpoints"]] == ["0", "1", "stage2"]
    assert found["checkpoints"][2]["forward_nme"] == scores["forward_nme"]
    assert found["checkpoints"][1]["forward_nme"] == scores["stage1_forward_nme"]
    assert (run.folder / "evaluation").read_json("quality_001.json")["cluster_compactness"] > 0
    assert all(row["spearman"] is None for of in found["correlations"].values() for row in of.values())  # of three
    json.dumps(found, allow_nan=False)
    assert len(bench.lines(found)) >= 7
