"""A detector as a file finds what the detector finds, on pictures of all shapes and in all forms that Python takes."""

import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from ray_kplm.cli.main import main
from ray_kplm.detectors import export_file as module
from ray_kplm.detectors.export_file import MAX_DIFFERENCE, ExportReport, export_file
from ray_kplm.detectors.stored import export
from ray_kplm.errors import ConfigError, DamageError, DataError, RunError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.visibility import OWN_FEATURES, VISIBILITY, VISIBILITY_STEP, VisibilityModel
from ray_kplm.run import Run
from ray_kplm.storage import Folder

ROOT = Path(__file__).parents[2]
K, SIDE = 4, 64
SHAPES = [(1, 1), (7, 5), (48, 64), (64, 64), (480, 640), (333, 1000), (1000, 90), (128, 128), (90, 61)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained_run) -> Run:
    """A run with seeded weights, partners in the mirror image, and probabilities."""
    overrides = ["network.depth=1", "compute.batch_images=4"]
    run = untrained_run(tmp_path_factory.mktemp("runs"), K, *overrides, seed=1, partners=[1, 0, -1, 3])
    rng = np.random.default_rng(0)
    weights = rng.normal(scale=0.3, size=(K, len(OWN_FEATURES) + 2 * K)).astype(np.float32)
    model = VisibilityModel(weights, rng.normal(size=(K, 2)).astype(np.float32))
    run.unit(VISIBILITY_STEP).write_json(VISIBILITY, model.to_dict())
    return run


@pytest.fixture(scope="module")
def detector(run) -> LandmarkDetector:
    return LandmarkDetector.load(run.folder.path, device="cpu")


@pytest.fixture(scope="module")
def written(run) -> tuple[ExportReport, str]:
    path = f"{run.folder.path}/a.onnx"
    return export_file(run, path), path


@pytest.fixture(scope="module")
def loaded(written) -> LandmarkDetector:
    return LandmarkDetector.load(written[1])


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    few = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))


def assert_same(found, expected, pixels=MAX_DIFFERENCE / 10) -> None:
    np.testing.assert_allclose(found.xy, expected.xy, atol=pixels, rtol=0)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-3, rtol=0)
    assert (found.found == expected.found).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_graph_takes_pictures_of_any_size(written, detector, shape):
    pictures = np.stack([picture(*shape, seed) for seed in range(3)])
    session = onnxruntime.InferenceSession(written[1])
    xy, confidence, probability, found = session.run(None, {"images": pictures})
    assert xy.shape == (3, K, 2)
    for number, expected in enumerate(detector.predict(pictures)):
        np.testing.assert_allclose(xy[number], expected.xy, atol=MAX_DIFFERENCE / 10, rtol=0)
        np.testing.assert_allclose(confidence[number], expected.confidence, atol=1e-4)
        np.testing.assert_allclose(probability[number], expected.probability, atol=1e-3)
        assert (found[number] == expected.found).all()


def test_the_least_probability_may_be_given(written, detector):
    one = picture(60, 80)
    session = onnxruntime.InferenceSession(written[1])
    (expected,) = detector.predict(one)
    assert expected.probability.min() > 0
    for least in (0.0, float(np.median(expected.probability)), 1.0):
        (found,) = session.run(["found"], {"images": one[None], "min_probability": np.array(least, np.float32)})
        assert (found[0] == (expected.probability >= np.float32(least))).all()
        (by_file,) = LandmarkDetector.load(written[1]).predict(one, min_probability=least)
        assert (by_file.found == found[0]).all()


def turned() -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(picture(60, 90)).save(stream, "JPEG", quality=90, exif=exif)
    return stream.getvalue()


def test_python_takes_the_same_images(loaded, detector, tmp_path):
    (tmp_path / "turned.jpg").write_bytes(turned())
    grey = picture(50, 40)[..., 0]
    images = [tmp_path / "turned.jpg", turned(), grey, Image.fromarray(picture(33, 44)), picture(300, 200), b"broken"]
    found, expected = (one.predict(images, errors="none") for one in (loaded, detector))
    assert found[5] is None
    for one, other in zip(found[:5], expected[:5], strict=True):
        assert_same(one, other)
    boxes = [[5, 3, 35, 25], [-10, -4, 22, 17]]
    for one, other in zip(*(d.predict([images[1], images[4]], boxes, 0.1) for d in (loaded, detector)), strict=True):
        assert_same(one, other)
    assert (loaded.landmarks, loaded.predict([])) == (K, [])


def test_the_file_says_what_it_holds(written):
    report, path = written
    model = onnx.load(path)
    texts = {one.key: one.value for one in model.metadata_props}
    assert json.loads(texts["names"]) == [f"landmark_{k}" for k in range(K)]
    assert json.loads(texts["flip_map"]) == [1, 0, -1, 3]
    assert (texts["precision"], texts["dataset"]) == ("fp32", "not known")
    assert "Mallis" in texts["cite"]
    assert min(len(texts[key]) for key in ("licence", "version", "fingerprint")) > 0
    assert json.loads(texts["max_difference"]) == report.max_difference <= MAX_DIFFERENCE
    assert (json.loads(texts["min_probability"]), json.loads(texts["image_size"])) == (0.5, SIDE)
    assert report.bytes == Path(path).stat().st_size
    assert next(one.version for one in model.opset_import if not one.domain) >= 17


def test_a_file_that_finds_other_landmarks_is_not_written(run, monkeypatch, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"before")
    to_graph = module._converter

    def tampered(form):
        def convert(graph):
            with torch.no_grad():
                graph.inference.network.landmarks.output.weight.mul_(-1)
            return to_graph(form)(graph)

        return convert

    monkeypatch.setattr(module, "_converter", tampered)
    with pytest.raises(RunError, match=r"not written, as it differs from the detector by .* px") as raised:
        export_file(run, tmp_path / "a.pt2", "torch")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_a_program_of_pytorch_finds_the_same(run, detector, tmp_path):
    report = export_file(run, tmp_path / "a.pt2", "torch")
    assert report.max_difference <= MAX_DIFFERENCE
    program = LandmarkDetector.load(tmp_path / "a.pt2")
    pictures = [picture(*shape) for shape in SHAPES]
    for found, expected in zip(program.predict(pictures), detector.predict(pictures), strict=True):
        assert_same(found, expected)
    with pytest.raises(ConfigError, match="runs on the CPU"):
        LandmarkDetector.load(tmp_path / "a.pt2", device="cuda")


PREDICT = """
    import json, sys

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("torch", "onnx", "ray", "faiss", "scipy"):
                raise ModuleNotFoundError(f"{name} is blocked", name=name)

    sys.meta_path.insert(0, Block())
    from ray_kplm import LandmarkDetector
    print(json.dumps(LandmarkDetector.load(sys.argv[1]).predict(sys.argv[2])[0].xy.tolist()))
"""


def test_it_runs_without_pytorch(written, detector, tmp_path):
    Image.fromarray(picture(70, 90)).save(tmp_path / "a.png")
    command = [sys.executable, "-c", textwrap.dedent(PREDICT), written[1], str(tmp_path / "a.png")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr[-2000:]
    expected = detector.predict(tmp_path / "a.png")[0].xy
    np.testing.assert_allclose(json.loads(ended.stdout), expected, atol=MAX_DIFFERENCE / 10)


def test_what_is_no_detector_is_one_clear_error(written, tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(Path(written[1]).read_bytes()[:5000])
    (tmp_path / "damaged.pt2").write_bytes(b"PK\3\4 no archive")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    foreign = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    errors = {
        "damaged.onnx": (DamageError, "cannot be read as ONNX"),
        "damaged.pt2": (DamageError, "cannot be read as a program of PyTorch"),
        "foreign.onnx": (RunError, "holds no detector of ray_kplm"),
        "missing.onnx": (DataError, "no such file"),
    }
    for name, (kind, text) in errors.items():
        with pytest.raises(kind, match=text) as raised:
            LandmarkDetector.load(tmp_path / name)
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="flip=True was decided"):
        LandmarkDetector.load(written[1], flip=False)
    with pytest.raises(ConfigError, match="cannot run on device 'tpu'"):
        LandmarkDetector.load(written[1], device="tpu")


def test_names_and_categories_that_no_file_can_have(run, written, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        export_file(run, tmp_path / "a.pb")
    assert main(["export", run.folder.path, str(tmp_path / "a.onnx"), "--format", "torch"]) == ConfigError.exit_code
    assert r"ends in .pt2" in capsys.readouterr().err
    assert main(["export", written[1], str(tmp_path / "b.onnx")]) == ConfigError.exit_code
    assert "is a file already" in capsys.readouterr().err


@pytest.mark.slow
def test_half_precision_is_checked_and_stored(run, monkeypatch, tmp_path, capsys):
    """From the folder of an exported detector. The heatmaps of an untrained network are flat, and their peaks move."""
    export(run, Folder.at(tmp_path / "detector"))
    command = ["export", str(tmp_path / "detector"), str(tmp_path / "half.onnx"), "--precision", "fp16", "--json"]
    assert main(command) == RunError.exit_code
    assert "try --precision fp32" in capsys.readouterr().err
    assert not (tmp_path / "half.onnx").exists()
    monkeypatch.setattr(module, "MAX_DIFFERENCE", 1e4)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp16"
    kinds = {one.data_type for one in onnx.load(tmp_path / "half.onnx").graph.initializer if len(one.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert LandmarkDetector.load(tmp_path / "half.onnx").landmarks == K


@pytest.mark.slow
def test_kplm_predict_runs_a_file(written, detector, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(picture(70 + number, 90, number)).save(tmp_path / "photos" / f"{number}.png")
    assert main(["predict", written[1], str(tmp_path / "photos"), str(tmp_path / "out"), "--csv"]) == 0
    rows = Folder.at(tmp_path / "out").read_table("part-00000.parquet").to_pylist()
    assert len(rows) == 6
    for row in rows:
        (expected,) = detector.predict(tmp_path / "photos" / row["image_id"])
        np.testing.assert_allclose(row["xy"], expected.xy, atol=MAX_DIFFERENCE / 10)
        np.testing.assert_allclose(row["probability"], expected.probability, atol=1e-3)
