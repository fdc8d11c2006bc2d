"""`kplm predict` as a process, by an exported detector that is untrained: what it writes is what Python says."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm import LandmarkDetector
from ray_kplm.detectors.stored import export
from ray_kplm.storage import Folder

K = 4


@pytest.fixture(scope="module")
def detector(tmp_path_factory, untrained_run):
    folder = tmp_path_factory.mktemp("runs")
    export(untrained_run(folder, K), Folder.at(folder / "detector"))
    return folder / "detector"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight good pictures of different kinds in two folders, and four that cannot be used."""
    folder = tmp_path_factory.mktemp("pictures")
    few = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(few).resize((90, 60), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 8
    (folder / "more").mkdir()
    picture.save(folder / "plain.png")
    picture.save(folder / "plain.jpg", quality=90)
    picture.resize((1200, 800)).save(folder / "large.jpg", quality=85, progressive=True)
    picture.transpose(Image.Transpose.ROTATE_270).save(folder / "more" / "turned.jpg", exif=exif)
    rgba = picture.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((90, 60)))
    rgba.save(folder / "more" / "rgba.png")
    Image.fromarray((np.asarray(picture)[..., 0] * 16.0).astype(np.uint16)).save(folder / "more" / "deep.png")
    picture.quantize(64).save(folder / "more" / "palette.gif")
    (folder / "more" / "no_end.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:-2])
    (folder / "cut.jpg").write_bytes((folder / "large.jpg").read_bytes()[:5000])
    (folder / "text.jpg").write_text("no picture")
    Image.new("RGBA", (50, 50)).save(folder / "invisible.png")
    Image.new("RGB", (9000, 9000)).save(folder / "bomb.png")
    return folder


def rows(out) -> dict[str, dict]:
    return {row["image_id"]: row for part in sorted(out.glob("part-*")) for row in pq.read_table(part).to_pylist()}


def test_a_folder_and_named_files_have_the_landmarks_that_python_finds(finish, detector, pictures, tmp_path):
    out, _ = finish("predict", detector, pictures, tmp_path / "folder", "--csv", "--coco", "compute.threads=1")
    assert "8 images; 4 rejected" in out
    found = rows(tmp_path / "folder")
    python = LandmarkDetector.load(detector, device="cpu")
    for name, expected in zip(found, python.predict(pictures / name for name in found), strict=True):
        np.testing.assert_allclose(found[name]["xy"], expected.xy, atol=1e-3)
        np.testing.assert_allclose(found[name]["confidence"], expected.confidence, atol=1e-4)
    rejected = pq.read_table(tmp_path / "folder" / "rejected.parquet").to_pylist()
    assert {row["source"]: row["reason"].partition(":")[0] for row in rejected} == {
        "cut.jpg": "truncated", "text.jpg": "not an image", "invisible.png": "transparent", "bomb.png": "too large",
    }  # fmt: skip
    assert any("9000 x 9000 = 81.0 million pixels" in row["reason"] for row in rejected)
    assert len(list(csv.DictReader((tmp_path / "folder" / "landmarks.csv").open()))) == 8 * K
    images = json.loads((tmp_path / "folder" / "coco.json").read_text())["images"]
    assert {(image["width"], image["height"]) for image in images} == {(90, 60), (1200, 800)}
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x0,y0,x1,y1\nplain.png,5,5,60,50\nplain.png,20,9,80,55\nmore/deep.png,-9,-9,40,40\n")
    named = [pictures / "plain.png", f"{pictures}/more/d*.png"]
    finish("predict", detector, *named, tmp_path / "named", "--boxes", boxes, "--margin", "0.1")
    found = rows(tmp_path / "named")
    assert list(found) == ["more/deep.png", "plain.png#0", "plain.png#1"]
    given = [[-9, -9, 40, 40], [5, 5, 60, 50], [20, 9, 80, 55]]
    paths = [pictures / name.partition("#")[0] for name in found]
    for name, expected in zip(found, python.predict(paths, given, 0.1), strict=True):
        np.testing.assert_allclose(found[name]["xy"], expected.xy, atol=1e-3)
