"""Error by the number of labels: all methods are measured once, interrupted work goes on, groups are means of points."""

import io

import numpy as np
import pytest
import torch

from ray_kplm.analysis.predictions import _predictions
from ray_kplm.bench.label_inputs import Annotation, draw, group_partners, grouped, mirror_partners, nme, read_annotation
from ray_kplm.bench.label_results import HEAD, PLOT, REGRESSION, RESULTS, SCRATCH, HalfWay, cell_key, lines, table
from ray_kplm.bench.labels import Sizes, bench
from ray_kplm.bench.point_groups import parse_groups
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset, PartBuilder
from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import encode_png
from ray_kplm.imaging.synthetic.category import LANDMARK_NAMES, category_of, render
from ray_kplm.inference.dataset import _PredictPart, _Work
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.schemas import NONE, TEST, TRAIN
from ray_kplm.storage import Folder

COUNTS = {TRAIN: 8, TEST: 4}
GROUPS = {"nose": [0], "both": [1, 2]}


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_config) -> Run:
    """A finished run with seeded weights, its annotated dataset, and its landmarks of all images."""
    folder = tmp_path_factory.mktemp("labels")
    dataset = write_dataset(Folder.at(folder / "dataset"))
    overrides = [*small_config, "method.landmarks=4", f"dataset={folder / 'dataset'}", f"run={folder / 'run'}"]
    run = Run.start(load_config(None, overrides)).save()
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save({"network": LandmarkNetwork(run.config.network, 4).state_dict()}, buffer)
    step = run.step("stage2", "train", {}, {})
    step.folder.write_bytes("network.pt", buffer.getvalue())
    step.folder.write_json(CHANNELS, Channels.first(np.ones(4, bool)).to_dict())
    step.finish()
    for one in _predictions(run, dataset, STAGE2, (TRAIN, TEST)):
        worker = _PredictPart([_Work(run.config, one.make, dataset.images(one.split), one.step.folder)])
        for part, rows in zip(dataset.parts(one.split), dataset.rows(one.split), strict=True):
            worker(f"0/{part}", np.arange(rows))
        one.step.finish()
    return run


def write_dataset(root: Folder) -> Dataset:
    splits = {}
    for split, count in COUNTS.items():
        sizes, parts = [count - 2, 2], ["part-00000.parquet", "part-00001.parquet"]
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            builder = PartBuilder(len(LANDMARK_NAMES))
            for i in range(size):
                made = render(len(split), 10 * number + i, 64)
                annotation = {"landmarks": made.landmarks, "visible": made.visible.tolist()}
                name, png = f"{split}/{number}-{i}", encode_png(made.image)
                builder.add(name, png, made.image, made.box, coordinates.translation(0, 0), annotation)
            tables = builder.tables()
            (root / split / "images").write_table(part, tables.images)
            (root / split / "landmarks").write_table(part, tables.landmarks)
        splits[split] = {"images": count, "parts": parts, "rows": sizes}
    pairs = [list(pair) for pair in category_of("creature").swap_pairs]
    root.write_json("dataset.json", {"landmark_names": list(LANDMARK_NAMES), "swap_pairs": pairs})
    count = len(LANDMARK_NAMES)
    root.write_json("manifest.json", {"kind": "dataset", "fingerprint": "f" * 64, "splits": splits, "landmarks": count})
    return Dataset.open(root)


def test_all_methods_are_measured_and_an_interrupted_measurement_goes_on(run, tmp_path):
    sizes = Sizes((3, 5), {REGRESSION: 1, HEAD: 1, SCRATCH: 1}, iterations=2, head_iterations=1, checkpoints=2)
    out, shown = Folder.at(tmp_path / "out"), []

    def interrupt(share: float, text: str) -> None:
        shown.append(text)
        if text.startswith("network from scratch: 5"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(run, sizes, GROUPS, out, interrupt)
    assert len(out.read_object(RESULTS)["cells"]) == 2 + 2 + 1
    shown.clear()
    results = bench(run, sizes, GROUPS, out, lambda share, text: shown.append(text))
    assert [text for text in shown if "seed" in text] == ["network from scratch: 5 labels, seed 0"]
    assert len(results["cells"]) == 2 + 2 + 2
    assert {row["points"] for row in results["table"]} == {"all", "groups"}
    assert all(np.isfinite(value) for cell in results["cells"].values() for value in cell["nme"].values())
    scratch = results["cells"][cell_key(SCRATCH, 5, 0, 2)]
    assert [one["iterations"] for one in scratch["checkpoints"]] == [1, 2]
    assert scratch["nme"]["all"] == min(one["all"] for one in scratch["checkpoints"])
    assert out.read_bytes(PLOT).startswith(b"\x89PNG")
    assert any(line.startswith("2 points") for line in lines(results))
    assert not out.folders() or not (out / "unfinished").folders()


def test_results_of_other_groups_are_not_continued(run, tmp_path):
    sizes, out = Sizes((3,), {REGRESSION: 1}, iterations=1, head_iterations=1), Folder.at(tmp_path / "out")
    bench(run, sizes, None, out)
    with pytest.raises(ConfigError, match="has results of another points, groups"):
        bench(run, sizes, GROUPS, out)


def test_more_labels_than_there_are_is_an_error(run, tmp_path):
    with pytest.raises(ConfigError, match="labels 9: there are 8 annotated training images"):
        bench(run, Sizes((9,), {REGRESSION: 1}, 1, 1), None, Folder.at(tmp_path))


def test_labelled_images_of_fewer_labels_are_among_those_of_more(run):
    train = read_annotation(Dataset.open(run.config.dataset), TRAIN, 64)
    assert draw(train, 3, 1).tolist() == draw(train, 6, 1).tolist()[:3]
    assert draw(train, 6, 1).tolist() != draw(train, 6, 2).tolist()


def test_partners_of_points_and_of_groups(run):
    partners = mirror_partners(Dataset.open(run.config.dataset))
    a, b = category_of("creature").swap_pairs[0]
    assert partners[a] == b
    assert group_partners({"a": [a], "b": [b], "both": [a, b]}, partners).tolist() == [1, 0, 2]
    assert group_partners({"a": [a]}, partners).tolist() == [NONE]


def test_the_error_is_a_mean_over_images_and_then_over_points():
    truth = np.zeros((2, 2, 2))
    truth[1, 1] = np.nan
    found = np.array([[[3.0, 4.0], [0, 1]], [[0, 0], [9, 9]]])
    annotation = Annotation(truth, np.array([10.0, 5.0]), [], np.arange(2))
    assert nme(found, annotation) == pytest.approx(((50 + 0) / 2 + 10) / 2)
    np.testing.assert_array_equal(grouped(found, {"both": [0, 1]})[0], [[1.5, 2.5]])


def test_groups_of_names_with_wildcards():
    names = ["eyeL_0", "eyeL_1", "nose"]
    assert parse_groups({"eye": "eyeL_*", "n": ["nose"]}, names, "f") == {"eye": [0, 1], "n": [2]}
    with pytest.raises(ConfigError, match="no annotated point is called ear"):
        parse_groups({"a": ["ear"]}, names, "f")
    with pytest.raises(ConfigError, match="must map names of points"):
        parse_groups(["nose"], names, "f")


def test_the_longest_training_counts_and_seeds_are_averaged():
    cells = [
        {"method": SCRATCH, "labels": 5, "seed": 0, "iterations": n, "nme": {"all": value}}
        for n, value in ((10, 9.0), (20, 7.0))
    ]
    cells.append({"method": SCRATCH, "labels": 5, "seed": 1, "iterations": 10, "nme": {"all": 8.0}})
    (row,) = table(cells)
    assert (row["seeds"], row["mean"]) == (2, 7.5)


def test_a_training_half_way_is_kept_once(tmp_path):
    half_way = HalfWay(Folder.at(tmp_path), "scratch 5 labels")
    assert half_way.read() == (0, None, [])
    half_way.write(100, b"a", [])
    half_way.write(200, b"b", [{"iterations": 200}])
    assert half_way.read() == (200, b"b", [{"iterations": 200}])
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    half_way.delete()
    assert half_way.read() == (0, None, [])
