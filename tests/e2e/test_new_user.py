"""A new user: a folder of own photos goes through training and prediction to other tools, and to a folder to share."""

import csv
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from ray_kplm import LandmarkDetector
from ray_kplm.imaging.synthetic.category import render

PHOTOS, K = 50, 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of different sizes, with spaces in their names and in folders of two days, and a file that is no photo."""
    folder = tmp_path_factory.mktemp("holidays")
    for number in range(PHOTOS):
        image = cv2.cvtColor(render(7, number, 96).image, cv2.COLOR_RGB2BGR)
        day = folder / f"day {number % 2}"
        day.mkdir(exist_ok=True)
        cv2.imwrite(str(day / f"photo {number}.jpg"), cv2.resize(image, (110 + number, 100)))
    (folder / "notes.txt").write_text("beach")
    return folder


def test_own_photos_to_landmarks_to_other_tools_and_to_a_shared_model(finish, photos, small_config, tmp_path):
    data, run, out, shared = (tmp_path / name for name in ("data", "run", "landmarks", "shared"))
    finish("ingest", photos, data)
    finish("train", "demo", f"dataset={data}", f"run={run}", *small_config, "compute.workers=1")
    finish("predict", run, photos, out, "--csv", "--coco")

    detector = LandmarkDetector.load(run, device="cpu")
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    expected = dict(zip(names, detector.predict(photos / name for name in names), strict=True))

    coco = COCO(str(out / "coco.json"))
    by_name = {image["file_name"]: image["id"] for image in coco.loadImgs(coco.getImgIds())}
    assert by_name.keys() == expected.keys()
    for name, found in expected.items():
        (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[by_name[name]]))
        points = np.array(annotation["keypoints"]).reshape(K, 3)
        np.testing.assert_allclose(points[:, :2], found.xy, atol=0.01)
    with open(out / "landmarks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PHOTOS * K
    for row in rows:
        point = expected[row["image_id"]].xy[int(row["landmark"])]
        np.testing.assert_allclose([float(row["x"]), float(row["y"])], point, atol=0.01)

    figures = json.loads(finish("push", run, "me/holidays", "--folder", shared, "--license", "cc0-1.0", "--json")[0])
    assert (figures["landmarks"], figures["synthetic"]) == (K, False)
    card = (shared / "README.md").read_text()
    assert 'from_pretrained("me/holidays")' in card
    assert "license: cc0-1.0" in card
    assert str(tmp_path) not in card + (shared / "config.json").read_text()
    assert not (shared / "examples.png").exists()
    loaded = LandmarkDetector.from_pretrained(shared, device="cpu")
    for name, found in zip(names, loaded.predict(photos / name for name in names), strict=True):
        np.testing.assert_array_equal(found.xy, expected[name].xy)
        np.testing.assert_array_equal(found.found, expected[name].found)
