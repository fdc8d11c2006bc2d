"""What a detector takes, and that the same pixels have the same landmarks in whatever form they come. No Ray, no training."""

import io
import json
import struct
import zlib

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ray_kplm.datasets.chosen_files import list_chosen
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.limits import Limits
from ray_kplm.datasets.listing import list_source
from ray_kplm.detectors.stored import detector_fingerprint, export, landmark_predictor
from ray_kplm.errors import DataError
from ray_kplm.inference.dataset import predict_batches
from ray_kplm.inference.images import _PredictPart
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.inputs import make_inputs, worker_placement
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import point_folder, write_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking.model import ImageModel

K, SIDE = 4, 64
WHOLE = (1e-3, 1e-4)
"""Greatest difference of coordinates, pixels, and of confidences."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained_run) -> Run:
    """A run whose network is untrained."""
    return untrained_run(tmp_path_factory.mktemp("runs"), K, "compute.batch_images=4")


@pytest.fixture(scope="module")
def exported(run) -> Run:
    """Its exported detector."""
    folder = run.folder.parent / "detector"
    export(run, folder)
    return Run.open(folder.path)


@pytest.fixture(scope="module")
def detector(exported) -> LandmarkDetector:
    return LandmarkDetector.load(exported.folder.path, device="cpu")


def picture(width=90, height=60, seed=0) -> Image.Image:
    few = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


RGB = np.asarray(picture())


def saved(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def rgba() -> Image.Image:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))))
    return image


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


def with_chunk(kind: bytes, body: bytes) -> bytes:
    png, chunk = saved(picture()), kind + body
    return png[:33] + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def encoded(form: str, values, *options) -> bytes:
    done, content = cv2.imencode(form, values, list(options))
    assert done
    return content.tobytes()


DEEP = np.rint(RGB[..., 0] * 16.0).astype(np.uint16)
PICTURES = {
    "small.png": saved(picture(40, 30)),
    "small.jpg": saved(picture(50, 64), "JPEG", quality=90),
    "large.jpg": saved(picture(1500, 1100), "JPEG", quality=90),
    "large.png": saved(picture(901, 333)),
    "progressive.jpg": saved(picture(300, 200), "JPEG", progressive=True, quality=75),
    "rgba.png": saved(rgba()),
    "palette.gif": saved(picture(), "GIF"),
    "turned.jpg": turned(),
    "cmyk.jpg": saved(picture().convert("CMYK"), "JPEG", quality=95),
    "grey.png": saved(picture().convert("L")),
    "twelve_bits.png": encoded(".png", DEEP),
    "floats.tif": encoded(".tif", (RGB[..., ::-1] / 255).astype(np.float32)),
    "lossy.webp": saved(picture(200, 300), "WEBP", quality=80),
    "thin.png": saved(picture(400, 9)),
    "huge_text.png": with_chunk(b"tEXt", b"k\0" + bytes(3 << 20)),
    "no_end.jpg": saved(picture(), "JPEG", quality=90)[:-2],
}
BOXES = {name: [[5, 3, 35, 25], [-10, -4, 22, 17]] for name in PICTURES if name != "thin.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, content in PICTURES.items():
        (folder / name).write_bytes(content)
    return folder


def predicted(exported: Run, listing, tmp_path) -> dict[str, dict]:
    """What a worker of `kplm predict` writes, in this process."""
    tables = listing.read_part([entry for of_split in listing.splits.values() for entry in of_split])
    assert tables.rejected.num_rows == 0
    worker = _PredictPart(lambda part: tables, landmark_predictor(exported), Folder.at(tmp_path))
    assert worker("part-00000.parquet", np.arange(1)) == {"images": tables.images.num_rows}
    return {row["image_id"]: row for row in Folder.at(tmp_path).read_table("part-00000.parquet").to_pylist()}


def assert_same(found, expected) -> None:
    xy, confidence = (found.xy, found.confidence) if hasattr(found, "xy") else (found["xy"], found["confidence"])
    np.testing.assert_allclose(xy, expected.xy, atol=WHOLE[0], rtol=0)
    np.testing.assert_allclose(confidence, expected.confidence, atol=WHOLE[1], rtol=0)


def test_the_command_line_and_python_agree_on_every_kind_of_picture(exported, detector, folder, tmp_path):
    options = IngestOptions(test_share=0.0, min_side=1, input_size=SIDE)
    found = predicted(exported, list_source(folder, options), tmp_path)
    assert found.keys() == PICTURES.keys()
    for name, by_path in zip(PICTURES, detector.predict([folder / name for name in PICTURES]), strict=True):
        assert_same(found[name], by_path)
        upright_size = (
            (90, 60) if name == "turned.jpg" else Image.open(folder / name).size if "tif" not in name else (90, 60)
        )
        assert (found[name]["width"], found[name]["height"]) == upright_size


def test_they_agree_in_boxes(exported, detector, folder, tmp_path):
    lines = ["image,x0,y0,x1,y1", *(f"{name},{','.join(map(str, box))}" for name in BOXES for box in BOXES[name])]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    options = IngestOptions(boxes=str(tmp_path / "boxes.csv"), margin=0.1, test_share=0.0, min_side=1, input_size=SIDE)
    found = predicted(exported, list_chosen([str(folder / name) for name in BOXES], options), tmp_path / "out")
    pairs = [(f"{name}#{i}", folder / name, box) for name in BOXES for i, box in enumerate(BOXES[name])]
    expected = detector.predict((path for _, path, _ in pairs), [box for _, _, box in pairs], 0.1)
    for (name, _, _), by_path in zip(pairs, expected, strict=True):
        assert_same(found[name], by_path)
        assert found[name]["width"] is not None


def test_they_agree_on_parquet(exported, detector, tmp_path):
    names = list(PICTURES)
    table = pa.table({"image_id": names, "image": pa.array(list(PICTURES.values()), pa.binary())})
    Folder.at(tmp_path).write_table("images.parquet", table)
    options = IngestOptions(test_share=0.0, min_side=1, input_size=SIDE)
    found = predicted(exported, list_source(tmp_path / "images.parquet", options), tmp_path / "out")
    for name, by_bytes in zip(names, detector.predict(list(PICTURES.values())), strict=True):
        assert_same(found[name], by_bytes)


def test_evaluation_sees_stored_crops_as_python_does(exported, detector, folder):
    """Of a dataset the stored crops are the pictures."""
    stored = list_source(folder, IngestOptions(test_share=0.0, min_side=1, size=100))
    images = stored.read_part(stored.splits["train"]).images
    make = landmark_predictor(exported)
    predictor = make(worker_placement(make.config.compute))
    _, points, confidence, _ = predict_batches(make_inputs(images, np.arange(images.num_rows), make.config), predictor)
    expected = detector.predict(images["image"].to_pylist())
    for xy, peaks, one in zip(points, confidence, expected, strict=True):
        assert_same({"xy": xy, "confidence": peaks}, one)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_the_same_landmarks_in_every_form(detector, folder, name):
    content, path = PICTURES[name], folder / name
    (expected,) = detector.predict(path)
    forms = [str(path), content, bytearray(content), memoryview(content)]
    if name not in ("floats.tif", "huge_text.png", "no_end.jpg"):  # Pillow alone decodes none of these
        forms.append(Image.open(path))
    for form in forms:
        assert_same(detector.predict(form)[0], expected)
        assert_same(detector.predict([form])[0], expected)


def test_arrays_of_the_same_pixels_have_the_same_landmarks(detector):
    (expected,) = detector.predict(saved(picture()))
    spread = np.ascontiguousarray(RGB).astype(np.int64) * 257
    forms = [RGB, RGB[None], np.asfortranarray(RGB), np.dstack([RGB, np.full((60, 90), 255, np.uint8)])]
    for form in forms:
        assert_same(detector.predict(form)[0], expected)
    (grey,) = detector.predict(saved(picture().convert("L")))
    values = np.asarray(picture().convert("L"))
    for form in (values, values[..., None], np.dstack([values, np.full_like(values, 255)])):
        assert_same(detector.predict(form)[0], grey)
    (deep,) = detector.predict(saved(Image.fromarray(DEEP)))
    for form in (DEEP, DEEP.astype(np.int32), DEEP / 4095, DEEP.astype(np.float32) - 300):
        assert_same(detector.predict(form)[0], deep)
    assert_same(detector.predict(spread)[0], detector.predict(spread / spread.max())[0])
    (on_white,) = detector.predict(saved(rgba()))
    assert_same(detector.predict(np.asarray(rgba()))[0], on_white)


def test_a_mirrored_view_of_an_array_is_its_mirror_image(detector):
    assert_same(detector.predict(RGB[:, ::-1])[0], detector.predict(np.ascontiguousarray(RGB[:, ::-1]))[0])


def test_images_come_one_by_one_or_several_from_any_iterable(detector):
    stack = np.stack([np.asarray(picture(seed=i)) for i in range(6)])
    expected = detector.predict(list(stack))
    for several in (stack, tuple(stack), iter(stack), (saved(Image.fromarray(one)) for one in stack)):
        for found, one in zip(detector.predict(several), expected, strict=True):
            assert_same(found, one)
    assert len(detector.predict(stack[..., 0])) == 6  # (N, H, W): grey images
    assert detector.predict([]) == []
    assert detector.predict(stack[:0]) == []


def test_an_iterator_is_read_batch_by_batch(detector):
    """A generator of images that is longer than memory."""
    alive = []

    def pictures():
        for number in range(10):
            alive.append(number)
            yield np.full((20, 20, 3), number, np.uint8)

    assert len(detector.predict(pictures())) == 10
    assert alive == list(range(10))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "images of type NoneType: give a path, an array"),
        (7, "images of type int: give"),
        ({"a": RGB}, "images of type dict: give"),
        ([RGB, None], "image 1: an image of type NoneType: give"),
        ([[1, 2]], "image 0: an image of type list: give"),
        ([np.array(["a.jpg"])], "image 0: an image of type ndarray: give"),
        ([np.zeros(5)], r"image 0: an array of shape \(5,\)"),
        ([np.zeros((2, 2, 7), np.uint8)], r"image 0: an array of shape \(2, 2, 7\) and type uint8: give \(H, W, 3\)"),
        ([np.zeros((0, 4, 3), np.uint8)], "image 0: an array of shape"),
        (np.zeros((3, 40, 60)), r"an array of shape \(3, 40, 60\): channels come last"),
        (np.zeros((2, 3, 4, 5, 6)), "an array of shape"),
        ([np.full((9, 9), np.nan)], "image 0: unreadable: no value of the picture is a finite number"),
        ([np.zeros((9, 9), complex)], "image 0: an image of type ndarray"),
        ("nowhere.jpg", "nowhere.jpg: unreadable: no such file"),
        (b"no image", "image 0: not an image"),
        (b"", "image 0: empty file"),
        (Image.new("RGBA", (9, 9)), "image 0: transparent"),
        (Image.new("RGB", (0, 0)), "image 0: an image without pixels"),
    ],
)
def test_what_is_no_image_is_one_clear_error(detector, wrong, message):
    with pytest.raises(DataError, match=message) as raised:
        detector.predict(wrong)
    assert "\n" not in str(raised.value)


def test_a_folder_in_place_of_a_file_is_named(detector, tmp_path):
    with pytest.raises(DataError, match=r"unreadable: a folder"):
        detector.predict(tmp_path)


def test_a_broken_image_does_not_lose_the_others(detector, folder, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(PICTURES["large.jpg"][:5000])
    names = [folder / "small.png", tmp_path / "broken.jpg", folder / "rgba.png", b"x", folder / "grey.png", *[RGB] * 5]
    with pytest.raises(DataError, match=r"broken\.jpg: truncated"):
        detector.predict(names)
    found = detector.predict(names, errors="none")
    assert [one is None for one in found] == [False, True, False, True, *[False] * 6]
    for number in (0, 2, 4, 9):
        assert_same(found[number], detector.predict([names[number]])[0])
    boxes = np.tile([2.0, 3.0, 30.0, 20.0], (10, 1))
    boxes[4] = np.nan
    found = detector.predict(names, boxes, errors="none")
    assert [number for number, one in enumerate(found) if one is None] == [1, 3, 4]
    assert_same(found[2], detector.predict(names[2], boxes[2])[0])
    with pytest.raises(DataError, match="errors is 'skip'"):
        detector.predict(names, errors="skip")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, 3]], "boxes: give four numbers"),
        (["abcd"], "boxes: give four numbers"),
        ([[1, 2, 30, 40]] * 2, "2 boxes for 1 images"),
        ([], "0 boxes for 1 images"),
        ([[np.nan, 2, 30, 40]], "image 0: bad box"),
        ([[30, 2, 1, 40]], "image 0: box without area"),
        ([[200, 2, 210, 40]], "image 0: box outside the image"),
        ([[0, 0, 1e9, 1e9]], "image 0: box too large"),
    ],
)
def test_boxes_that_are_none_are_one_clear_error(detector, boxes, message):
    with pytest.raises(DataError, match=message):
        detector.predict(RGB, boxes)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(detector, margin):
    with pytest.raises(DataError, match="margin is"):
        detector.predict(RGB, [[1, 2, 30, 40]], margin)


def test_larger_pictures_than_the_limits_are_refused(exported, folder):
    small = LandmarkDetector.load(exported.folder.path, device="cpu", limits=Limits(5399, 1_000_000))
    for image in (RGB, Image.fromarray(RGB), saved(picture())):
        with pytest.raises(DataError, match=r"too large: 90 x 60"):
            small.predict(image)
    with pytest.raises(DataError, match=r"huge_text\.png: too large: a file of 3\.\d MB"):
        small.predict(folder / "huge_text.png")


def test_the_model_for_mlflow_gives_the_same(detector):
    images = np.stack([np.asarray(picture(seed=i)) for i in range(5)])
    found, expected = ImageModel(detector).predict(images), detector.predict(images)
    for xy, confidence, one in zip(found["xy"], found["confidence"], expected, strict=True):
        assert_same({"xy": xy, "confidence": confidence}, one)
    assert {name: values.shape for name, values in ImageModel(detector).predict(images[:0]).items()} == {
        "xy": (0, K, 2), "confidence": (0, K),
    }  # fmt: skip


def test_an_exported_detector_has_a_fingerprint(exported):
    assert len(detector_fingerprint(exported)) == 16
    assert json.dumps(detector_fingerprint(exported))


def test_points_of_a_run_replace_its_landmarks(run):
    layout = Layout("", ("nose", "mouth"), (0, 1), ((0, 1),))
    write_point_set(point_folder(run.folder, "edited"), PointSet.of_groups(layout, [[2], [0, 3]], K))
    plain = LandmarkDetector.load(run.folder.path, device="cpu", points="landmarks")
    edited = LandmarkDetector.load(run.folder.path, device="cpu")
    assert (edited.names, edited.landmarks, plain.landmarks) == (("nose", "mouth"), 2, K)
    [raw], [points] = plain.predict(RGB), edited.predict(RGB)
    np.testing.assert_allclose(points.xy, [raw.xy[2], raw.xy[[0, 3]].mean(0)], atol=1e-3)
    assert detector_fingerprint(run) != detector_fingerprint(run, "landmarks")
    with pytest.raises(DataError, match="it has landmarks, edited"):
        LandmarkDetector.load(run.folder.path, points="other")
