"""Generations other than the default, from images to scores through the command line."""

import json
from pathlib import Path


def manifests(run: Path) -> set[str]:
    return {str(path.parent.relative_to(run)) for path in run.rglob("manifest.json")}


def test_chapter_5_finds_its_number_of_landmarks(finish, small, folder):
    run = folder / "merged"
    chapter5 = [
        "method.kind=merge", "merging.every=30", "merging.min_points=5", "merging.confidence=0.01", "merging.distance=3",
        "merging.overlap=0.2",
    ]  # fmt: skip
    train = ["train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *small, *chapter5]
    finish(*train)
    assert manifests(run) == {
        "keypoints", "keypoints/clustered/labels", "rounds/000/train", "rounds/000/labels", "rounds/001/train",
        "rounds/001/labels", "stage2/000/train", "stage2/000/merge", "stage2",
    }  # fmt: skip
    first = json.loads((run / "stage2" / "000" / "train" / "channels.json").read_text())
    merge = json.loads((run / "stage2" / "000" / "merge" / "manifest.json").read_text())
    last = json.loads((run / "stage2" / "channels.json").read_text())
    assert first["channels"] == merge["channels_before"] > last["channels"] == merge["channels"] >= 2
    assert len(last["history"]) == first["channels"] - last["channels"]
    assert set(last["names"]) == set(first["names"]) - {merged["channel"] for merged in last["history"]}

    out, _ = finish(*train)
    assert "was finished before" in out
    out, _ = finish("evaluate", run, "--json")
    scores = json.loads(out.strip().splitlines()[-1])
    assert scores["landmarks"] == last["channels"]
    assert 0 < scores["forward_nme"] < 200
    out, _ = finish("show", run, "--count", "4")
    assert Path(out.strip()).stat().st_size > 1000


def test_a_single_stage_has_its_detector_after_the_rounds(finish, small, folder):
    run = folder / "joint"
    finish(
        "train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *small, "stage2.training=joint",
        "compute.workers=2",
    )  # fmt: skip
    assert manifests(run) == {
        "keypoints", "rounds/000/train", "rounds/000/labels", "rounds/001/train", "rounds/001/labels", "stage2",
    }  # fmt: skip
    out, _ = finish("evaluate", run, "--json")
    scores = json.loads(out.strip().splitlines()[-1])
    assert scores["landmarks"] == 5
    assert 0 < scores["forward_nme"] < 200
    assert 0 < scores["stage1_forward_nme"] < 200


def test_chapter_4_names_points_by_a_template(kplm, finish, small, folder):
    run = folder / "template"
    chapter4 = [
        "method.kind=template", "template.rounds=2", "template.distil_from=1", "template.min_matched=0.3",
        "template.confidence=0.01", "template.distance=0.2", "template.candidates=5", "template.sample=20",
    ]  # fmt: skip
    train = ["train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *small, *chapter4]
    finish(*train)
    assert manifests(run) == {
        "keypoints", "rounds/000/train", "rounds/000/labels", "rounds/001/train", "rounds/001/labels", "template/labels",
        "stage2/000/train", "stage2/000/labels", "stage2",
    }  # fmt: skip
    chosen = json.loads((run / "template" / "labels" / "template.json").read_text())
    assert json.loads((run / "stage2" / "channels.json").read_text())["channels"] == len(chosen["xy"])

    out, _ = finish("evaluate", run, "--json")
    scores = json.loads(out.strip().splitlines()[-1])
    assert scores["landmarks"] == len(chosen["xy"])
    assert 0 < scores["forward_nme"] < 200
    assert "stage1_forward_nme" not in scores
    out, _ = finish("template", run)
    assert Path(out.strip()).stat().st_size > 1000

    process = kplm("template", run, "nobody.png")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    other = err.strip().split("for example ")[1].strip("'")
    out, _ = finish("template", run, other)
    assert Path(out.strip()).stat().st_size > 1000
    out, _ = finish("fork", run, folder / "other-template", f"template.image={other}")
    assert "rounds/001/labels" in out
    assert "template/labels" not in out.split("next:")[0]


def test_chapter_5_says_when_there_is_nothing_to_cluster(kplm, small, folder):
    points = folder / "points.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image_id": ["none"], "xy": [[[1.0, 2.0]]]}), points)
    run = folder / "undescribed"
    process = kplm(
        "train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *small, "method.kind=merge",
        "keypoints.detector=file", f"keypoints.file={points}",
    )  # fmt: skip
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "has no descriptors" in err.strip().splitlines()[-1]
