"""Damaged files of a finished run and its dataset: every command gives one line, or is not affected. Nothing is silent."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ray_kplm import LandmarkDetector
from ray_kplm.analysis import label_free as analysis_quality
from ray_kplm.analysis import predictions as analysis_predictions
from ray_kplm.analysis import report as analysis_report
from ray_kplm.analysis.evaluate import evaluate
from ray_kplm.analysis.report import report
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.errors import KplmError
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.inference import dataset as inference_dataset
from ray_kplm.inference.images import predict_images
from ray_kplm.pipeline import discover
from ray_kplm.run import Run
from ray_kplm.steps import extract
from ray_kplm.steps.ingest import ingest
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import _checked, _published
from ray_kplm.verify import verify

FILES = [
    "run/stage2/network.pt", "run/stage2/channels.json", "run/stage2/manifest.json", "run/config.yaml",
    "run/number_format.json", "run/mlflow.json", "run/facing/template.npz", "run/facing/manifest.json",
    "run/facing/part-00002.parquet", "run/keypoints/part-00001.parquet", "run/keypoints/outliers.npz",
    "run/rounds/000/train/network.pt", "run/rounds/001/train/network.pt", "run/rounds/001/clusters.npz",
    "run/rounds/001/labels/part-00000.parquet", "run/rounds/001/labels/manifest.json",
    "run/evaluation/stage2/test/part-00000.parquet", "run/evaluation/metrics.json", "data/dataset.json",
    "data/manifest.json", "data/train/images/part-00001.parquet", "data/train/landmarks/part-00003.parquet",
    "data/test/images/part-00000.parquet", "data/test/landmarks/part-00000.parquet", "data/rejected.parquet",
]  # fmt: skip
FAULTS = ["flip", "hole", "cut", "empty", "delete"]


def spoil(path: Path, fault: str, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    place = int(at * (len(content) - 1))
    if fault == "flip":
        content[place] ^= 1 << (place % 8)
    elif fault == "hole":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    elif fault == "cut":
        del content[place:]
    elif fault == "empty":
        content.clear()
    path.unlink()
    if fault != "delete":
        path.write_bytes(content)


@pytest.fixture(scope="module")
def kept(ray_cluster, small_config, tmp_path_factory) -> Path:
    """A finished, evaluated and reported run of a category that is seen from the side, and its dataset, in `work`.

    Returns:
        A copy of `work`, from which `restored` makes it anew.
    """
    root = tmp_path_factory.mktemp("original") / "work"
    write_category(root / "source", 60, size=64, test_share=0.2, kind="profile")
    ingest(root / "source", root / "data", IngestOptions(part_images=12))
    changes = [*small_config, f"dataset={root / 'data'}", f"run={root / 'run'}", "method.mirror=facing"]
    write_photos(root / "photos")
    (root / "overrides.json").write_text(json.dumps(changes))
    run, _ = discover(load_config(None, changes))
    evaluate(run)
    report(run)
    return Path(shutil.copytree(root, root.parent / "kept"))


def write_photos(folder: Path) -> None:
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 80, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")


def restored(kept: Path) -> Path:
    """The run and its dataset as they were made, at their place."""
    work = kept.parent / "work"
    shutil.rmtree(work)
    return Path(shutil.copytree(kept, work))


MADE_AGAIN = "Ray is started to make it again"


class Starts(Exception):
    """Ray would be started: there is work to do."""


def refuse(*_):
    raise Starts


def map_here(worker, arguments, parts, pool, progress=None):
    """`map_parts` in this process, with a worker that was pickled as for another one."""
    if not parts.parts:
        return []
    made = worker(**pickle.loads(pickle.dumps(arguments)))
    return [made(part, rows) for part, rows in zip(parts.parts, parts.rows, strict=True)]


@pytest.fixture
def here(monkeypatch):
    """Commands work in this process, which has read nothing before. `kplm train` ends where it would start Ray."""
    for module in (inference_dataset, analysis_quality):
        monkeypatch.setattr(module, "map_parts", map_here)
    monkeypatch.setattr(extract, "RayWorkers", lambda: SimpleNamespace(map=map_here))
    for module in (analysis_predictions, analysis_report):
        monkeypatch.setattr(module, "session", lambda compute: nullcontext())
    monkeypatch.setattr("ray_kplm.pipeline.session", refuse)
    monkeypatch.setattr("ray_kplm.pipeline.send_pending", lambda *_: None)
    _published.clear()
    _checked.clear()


def by_detector(root: Path):
    photos = sorted((root / "photos").iterdir())
    return [found.xy.tolist() for found in LandmarkDetector.load(root / "run", device="cpu").predict(photos)]


def by_predict(root: Path):
    out = root / "landmarks"
    predict_images(Run.open(str(root / "run")), root / "photos", out)
    return [Folder.at(out).read_table(part)["xy"].to_pylist() for part in Folder.at(out).parts()]


def by_evaluate(root: Path):
    metrics = evaluate(Run.open(str(root / "run")))
    return {k: v for k, v in metrics.items() if k not in ("seconds", "folder", "dataset")}


def by_report(root: Path):
    report(Run.open(str(root / "run")))
    return "written"


def by_train(root: Path):
    config = load_config(None, json.loads((root / "overrides.json").read_text()))
    try:
        return "done" if not discover(config)[1] else "worked"
    except Starts:
        return MADE_AGAIN


COMMANDS = {
    "train": by_train,
    "evaluate": by_evaluate,
    "predict": by_predict,
    "report": by_report,
    "detector": by_detector,
}


def outcome(command: str, root: Path):
    """What a command gives in a process that has read nothing before, or `("one line", its error)`."""
    _published.clear()
    _checked.clear()
    try:
        return COMMANDS[command](root)
    except KplmError as error:
        return ("one line", str(error))


@pytest.fixture
def expected(kept, here):
    """What the commands give before anything is damaged."""
    work = restored(kept)
    return {command: outcome(command, work) for command in COMMANDS}


def cell(command: str, path: str, fault: str, kept: Path, expected) -> str:
    """`as before`, `made again` or the error; what must not happen raises."""
    work = restored(kept)
    spoil(work / path, fault)
    found = outcome(command, work)
    if isinstance(found, tuple):
        assert "\n" not in found[1]
        return found[1]
    if found == expected[command]:
        return "as before"
    assert found == MADE_AGAIN, f"{command} after {fault} of {path}: silently something else"
    return "made again"


TABLE = [
    ("run/stage2/network.pt", "flip"), ("run/stage2/network.pt", "delete"), ("run/stage2/network.pt", "hole"),
    ("run/stage2/channels.json", "cut"), ("run/stage2/manifest.json", "hole"), ("run/stage2/manifest.json", "flip"),
    ("run/config.yaml", "cut"), ("run/config.yaml", "flip"), ("run/number_format.json", "empty"),
    ("run/mlflow.json", "hole"), ("run/facing/template.npz", "delete"), ("run/facing/template.npz", "flip"),
    ("run/keypoints/part-00001.parquet", "flip"), ("run/rounds/001/train/network.pt", "cut"),
    ("run/rounds/001/clusters.npz", "flip"), ("run/rounds/001/labels/part-00000.parquet", "flip"),
    ("run/rounds/001/labels/part-00000.parquet", "delete"), ("run/rounds/001/labels/manifest.json", "empty"),
    ("run/evaluation/stage2/test/part-00000.parquet", "hole"), ("run/evaluation/metrics.json", "cut"),
    ("data/dataset.json", "delete"), ("data/manifest.json", "hole"), ("data/train/images/part-00001.parquet", "cut"),
    ("data/test/images/part-00000.parquet", "flip"), ("data/test/landmarks/part-00000.parquet", "delete"),
]  # fmt: skip


def test_every_fault_is_one_line_or_does_not_matter(kept, expected):
    cells = {(path, fault): [cell(c, path, fault, kept, expected) for c in COMMANDS] for path, fault in TABLE}
    assert all(expected[c] is not None for c in COMMANDS)
    for (path, fault), row in cells.items():
        noticed = [found for found in row if found not in ("as before", "made again")]
        assert all(path.split("/")[-1] in found or "kplm" in found for found in noticed), (path, fault, row)
    of_detector = [row[list(COMMANDS).index("detector")] for row in cells.values()]
    assert sum(found != "as before" for found in of_detector) >= 8  # its network, channels, configuration, template


def test_what_is_repaired_is_made_again_as_it_was(kept, ray_cluster):
    work = restored(kept)
    lost = ["stage2/network.pt", "rounds/001/clusters.npz", "keypoints/part-00001.parquet", "facing/template.npz"]
    for path, fault in zip(lost, ("flip", "cut", "delete", "hole"), strict=True):
        spoil(work / "run" / path, fault)
    assert isinstance(outcome("train", work), tuple)
    folder = Folder.at(work / "run")
    assert {finding.path for finding in verify(folder, repair=True).faults} == {*lost}
    assert discover(load_config(None, json.loads((work / "overrides.json").read_text())))[1]
    assert not verify(folder).findings
    for path in [*lost, "rounds/001/labels/part-00000.parquet", "rounds/001/train/network.pt"]:
        assert (work / "run" / path).read_bytes() == (kept / "run" / path).read_bytes(), path
