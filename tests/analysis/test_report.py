"""What the report reads from a run directory, without Ray: rounds, mergings, and whose clusters became which landmarks."""

import cv2
import numpy as np
import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.analysis import embedding
from ray_kplm.analysis.embedding import _landmarks
from ray_kplm.analysis.mirror_images import mirror_images
from ray_kplm.analysis.report import report
from ray_kplm.analysis.training_history import merges, rounds
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError
from ray_kplm.report.embedding import Described
from ray_kplm.report.pictures import thumbnail
from ray_kplm.run import Run
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder

PART, SIDE = "part-00000.parquet", 100
IDS = [f"{i}.png" for i in range(6)]
PLACES = [(20.0, 20.0), (80.0, 20.0), (50.0, 80.0)]


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Six training images without pixels."""
    root = Folder.at(tmp_path / "dataset")
    splits = {"train": {"images": 6, "parts": [PART], "rows": [6]}}
    root.write_json("manifest.json", {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits})
    root.write_json("dataset.json", {"name": "dots"})
    sizes = {"image_id": IDS, "width": [SIDE] * 6, "height": [SIDE // 2] * 6}
    (root / "train" / "images").write_table(PART, pa.table(sizes))
    return Dataset.open(root)


@pytest.fixture
def run(tmp_path) -> Run:
    made = Run.start(load_config(None, [f"run={tmp_path / 'run'}", "stage1.rounds=1"]))
    made.save()
    return made


def finish_round(run, number, landmarks, ids=IDS, shift=0.0, **facts):
    """Publish a round whose images have a point at each of PLACES, called as `landmarks` say."""
    xy = [[(x + shift, y) for x, y in PLACES]] * len(ids)
    nothing = [[-1] * 3] * len(ids)
    columns = [ids, xy, [[1.0] * 3] * len(ids), [landmarks] * len(ids), nothing, nothing]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schemas.LABELS, strict=True)]
    labels = run.step(f"rounds/{number:03d}/labels", "correspond", {}, {})
    labels.folder.write_table(PART, pa.Table.from_arrays(arrays, schema=schemas.LABELS))
    labels.finish(images=len(ids), points_per_image=3.0, detected_per_image=5.0, **facts)
    run.step(f"rounds/{number:03d}/train", "train", {}, {}).finish(metrics={"loss": 0.5, "detector": 0.25})


def test_rounds_have_their_numbers_and_their_agreement_with_the_last(run, dataset):
    finish_round(run, 0, [2, 0, 1], shift=2, landmark_objective=6.0, cluster_objective=1.8)
    finish_round(run, 1, [0, 1, 2], landmark_objective=3.0)
    first, last = rounds(run, dataset)
    assert first["round"] == 0
    assert (first["points_per_image"], first["loss"], first["detector"], first["descriptor"]) == (3.0, 0.5, 0.25, None)
    assert first["landmark_objective"] == pytest.approx(6.0 / (2 * 5 * 6))  # a descriptor and its mirrored one
    assert first["cluster_objective"] == pytest.approx(1.8 / (2 * 3 * 6))
    assert first["stability"] == pytest.approx(100)  # other names, same points
    assert first["found_again"] == 100
    assert "stability" not in last


def test_distant_points_are_not_the_same_point(run, dataset):
    finish_round(run, 0, [0, 1, 2], shift=8)  # more than a twentieth of the longer side
    finish_round(run, 1, [0, 1, 2])
    assert rounds(run, dataset)[0]["found_again"] == 0


def test_points_without_a_landmark_do_not_count(run, dataset):
    finish_round(run, 0, [0, -1, 2])
    finish_round(run, 1, [0, 1, 2])
    assert rounds(run, dataset)[0]["found_again"] == pytest.approx(100 * 2 / 3)


def test_rounds_on_other_images_are_not_compared(run, dataset):
    finish_round(run, 0, [0, 1, 2], ids=IDS[:3])
    finish_round(run, 1, [0, 1, 2], ids=IDS[3:])
    assert "stability" not in rounds(run, dataset)[0]


def test_measured_quality_of_a_round_is_included(run, dataset):
    finish_round(run, 0, [0, 1, 2])
    finish_round(run, 1, [0, 1, 2])
    (run.folder / "evaluation").write_json("quality_001.json", {"equivariance_error": 2.5})
    first, last = rounds(run, dataset)
    assert "equivariance_error" not in first
    assert last["equivariance_error"] == 2.5


def test_merging_steps_are_in_order(run):
    merged = [{"channel": 3, "into": 1, "overlap": 0.9}]
    run.step("stage2/001/merge", "merge", {}, {}).finish(channels_before=3, channels=3, merged=[])
    run.step("stage2/000/merge", "merge", {}, {}).finish(channels_before=4, channels=3, merged=merged)
    run.step("stage2/000/train", "landmarks", {}, {}).finish()
    assert merges(run) == [{"before": 4, "after": 3, "merged": merged}, {"before": 3, "after": 3, "merged": []}]


@pytest.fixture
def recorded(dataset, monkeypatch):
    """Runs of any configuration are taken to be of this dataset."""
    monkeypatch.setattr(embedding, "recording_of", lambda run: record(run, dataset))


def described(cluster, places):
    cluster, count = np.asarray(cluster), len(cluster)
    return Described(np.zeros(count, int), np.asarray(places) / SIDE, np.zeros((count, 2), np.float16), cluster)


def channels(run, of):
    left = sorted({k for k in of if k >= 0})
    plain = {"of": of, "names": left, "flip_map": [-1] * len(left), "history": []}
    (run.folder / "stage2").write_json("channels.json", plain)


def test_clusters_of_the_warm_up_get_the_landmarks_at_their_places(run, recorded):
    channels(run, [0, 1, 2])
    found = [described([1, 2, 0, 3], [*PLACES, (5, 95)]), described([0, 1, 2], PLACES)]
    landmarks, (first, last) = _landmarks(run, found)
    assert landmarks == 3
    assert first.tolist() == [2, 0, 1, -1]
    assert last.tolist() == [0, 1, 2]


def test_clusters_that_keep_their_numbers_are_the_channels_that_they_became(run, recorded, tmp_path):
    run = Run(run.folder, load_config(None, [f"run={tmp_path / 'run'}", "stage1.rounds=1", "method.kind=merge"]))
    channels(run, [0, -1, 1, 0])
    found = [described([3, 1], PLACES[:2]), described([0, 2], PLACES[:2])]
    landmarks, names = _landmarks(run, found)
    assert landmarks == 2
    assert [name.tolist() for name in names] == [[0, -1, 1, 0]] * 2


@pytest.fixture
def pictured(tmp_path) -> Dataset:
    """Forty training images in two parts; the grey of each is five times its number."""
    root = Folder.at(tmp_path / "pictured")
    parts = [f"part-{i:05d}.parquet" for i in range(2)]
    splits = {"train": {"images": 40, "parts": parts, "rows": [20, 20]}}
    root.write_json("manifest.json", {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits})
    root.write_json("dataset.json", {"name": "greys"})
    for number, part in enumerate(parts):
        greys = [np.full((20, 30, 3), 5 * i, np.uint8) for i in range(20 * number, 20 * number + 20)]
        encoded = [cv2.imencode(".png", grey)[1].tobytes() for grey in greys]
        ids = [str(i) for i in range(20 * number, 20 * number + 20)]
        (root / "train" / "images").write_table(part, pa.table({"image_id": ids, "image": encoded}))
    return Dataset.open(root)


FACTS = {"sample": 40, "contrast": -0.1, "symmetric": 0.02, "kurtosis": 1.2}


def test_the_pictures_of_mirror_images_are_of_the_images_with_these_facings(run, pictured):
    facing = np.where(np.arange(40) % 2, 0.9, -0.8)
    facing[[3, 30]] = 0.2, -0.1
    folder = run.folder / "facing"
    for number, part in enumerate(pictured.parts("train")):
        ids = [str(i) for i in range(20 * number, 20 * number + 20)]
        shuffled = np.random.default_rng(number).permutation(20)
        table = pa.table([ids, facing[20 * number :][:20].tolist()], schema=schemas.FACINGS)
        folder.write_table(part, table.take(shuffled))
    facts = FACTS | {"mirror": "facing", "agreement": 0.9, "doubtful": 0.05, "positive": 0.5}
    run.step("facing", "facing", {}, {}).finish(**facts)
    shown = mirror_images(run, pictured)
    assert shown.line.startswith("mirror images face the other way: 2 % of the images")
    for (strip, pictures), odd in zip(shown.strips[:2], (1, 0), strict=True):
        assert len(pictures) == len(strip.rows) == 10
        assert (strip.rows % 2 == odd).all()
        assert [picture.uri for picture in pictures] == [
            thumbnail(np.full((20, 30, 3), 5 * row, np.uint8), 128).uri for row in strip.rows.tolist()
        ]
    doubtful, _ = shown.strips[2]
    assert (doubtful.rows.tolist(), doubtful.captions) == ([30, 3], ["10 % sure", "20 % sure"])


def test_mirror_images_with_partners_have_a_line_and_those_that_were_not_looked_at_nothing(run, pictured):
    assert mirror_images(run, pictured) is None
    run.step("facing", "facing", {}, {}).finish(**FACTS, mirror="partners")
    shown = mirror_images(run, pictured)
    assert (shown.line[:28], shown.strips) == ("mirror images have partners:", ())


def test_an_empty_gallery_is_refused(run):
    with pytest.raises(ConfigError, match="images = 0: must be at least 1"):
        report(run, images=0)
