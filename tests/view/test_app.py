"""Images, points and labels over HTTP, in this process; the network and the files are real."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_kplm.labels.reading import read_labels
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.points.stored import point_folder, read_point_set

from .conftest import IMAGES, K, asked, get, open_workspace, post

NAMES = [f"landmark_{k}" for k in range(K)]
POINTS = [[1.5, 2.25, 2], [60, 61.125, 1], None, [0, 0, 2]]


def label(image=0, points=POINTS, names=NAMES, revision=None):
    return post("/api/label", {"image": image, "points": points, "names": names, "revision": revision})


def test_what_the_page_shows_at_first(run):
    state = asked(open_workspace(run), get("/api/state")).json()
    (landmarks,) = state["sets"]
    assert (state["images"], state["splits"], state["source"]) == (IMAGES, ["test", "train"], "creatures")
    assert (landmarks["id"], landmarks["names"], len(landmarks["colours"])) == ("landmarks", NAMES, K)
    assert (state["labels"]["count"], state["labels"]["names"]) == (0, [])
    assert [point["landmarks"] for point in state["edited"]["points"]] == [[k] for k in range(K)]


def test_points_are_those_of_the_detector_in_pixels_of_the_picture(run):
    workspace = open_workspace(run)
    found = asked(workspace, get("/api/points", set="landmarks", images="0,7,23")).json()
    detector = LandmarkDetector.load(run.folder.path, device="cpu")
    for index in (0, 7, 23):
        (expected,) = detector.predict(workspace.gallery.stored(index))
        np.testing.assert_allclose(found[str(index)]["xy"], expected.xy, atol=2e-3)
        np.testing.assert_allclose(found[str(index)]["sure"], expected.confidence, atol=1e-4)
        assert (found[str(index)]["width"], found[str(index)]["height"]) == (64, 64)


def test_images_are_listed_in_pages_and_by_split(run):
    workspace = open_workspace(run)
    first = asked(workspace, get("/api/images", set="landmarks", count=5)).json()
    second = asked(workspace, get("/api/images", set="landmarks", count=5, offset=5)).json()
    assert [one["index"] for one in first["images"] + second["images"]] == list(range(10))
    assert (first["total"], first["images"][0]["points"]) == (IMAGES, None)
    train = asked(workspace, get("/api/images", set="landmarks", split="train", count=3)).json()
    assert (train["total"], [one["split"] for one in train["images"]]) == (18, ["train"] * 3)


def test_all_images_are_predicted_ahead_and_ordered_by_how_sure_their_points_are(run):
    workspace = open_workspace(run)

    def listed(**query):
        left = None
        while left != 0:
            reply = asked(workspace, get("/api/images", set="landmarks", count=200, **query)).json()
            left = reply["left"]
            workspace.worker.submit(9, lambda: None).result(60)  # what is done ahead is done before
        return reply["images"]

    least, most = listed(order="least"), listed(order="most")
    means = [np.mean(one["points"]["sure"]) for one in least]
    assert len(least) == len(most) == IMAGES
    assert (np.diff(means) > -1e-4).all()
    assert means[-1] > means[0] + 1e-3
    assert (np.diff([np.mean(one["points"]["sure"]) for one in most]) < 1e-4).all()
    of_one = [one["points"]["sure"][2] for one in listed(order="least", point=2)]
    assert of_one == sorted(of_one)
    middle = (means[10] + means[12]) / 2
    assert {one["index"] for one in listed(below=middle)} == {one["index"] for one in least[:11]} | {
        one["index"] for one, mean in zip(least[11:], means[11:], strict=True) if mean < middle
    }


def test_a_label_is_saved_as_coco_keypoints_that_are_read_as_labels(run):
    workspace = open_workspace(run)
    saved = asked(workspace, label(3)).json()
    assert saved["points"] == POINTS
    labels = read_labels(f"{run.folder}/labels/labels.json")
    assert (labels.names, len(labels), labels.rejected) == (tuple(NAMES), 1, ())
    np.testing.assert_allclose(labels.xy[0], [[1.5, 2.25], [60, 61.125], [np.nan] * 2, [0, 0]])
    assert labels.visible.tolist() == [[True, False, False, True]]
    assert np.isnan(labels.boxes).all()  # the object is looked for in the whole crop, as here
    (there,) = LandmarkDetector.load(run.folder.path, device="cpu").predict(labels.images[0])
    (here,) = LandmarkDetector.load(run.folder.path, device="cpu").predict(workspace.gallery.stored(3))
    np.testing.assert_array_equal(there.xy, here.xy)


def test_a_later_session_goes_on_with_the_labels(run):
    asked(open_workspace(run), label(3))
    workspace = open_workspace(run, split="test")
    (entry,) = asked(workspace, get("/api/images", set="landmarks", labelled="yes")).json()["images"]
    assert (entry["index"], entry["label"]["points"]) == (3, POINTS)
    moved = [[2, 2, 2], *POINTS[1:]]
    again = asked(workspace, label(3, moved, revision=entry["label"]["revision"])).json()
    assert again["points"][0] == [2, 2, 2]
    assert len(read_labels(f"{run.folder}/labels/labels.json")) == 1
    assert asked(workspace, post("/api/unlabel", {"image": 3, "revision": again["revision"]})).status_code == 200
    assert asked(workspace, get("/api/images", set="landmarks", labelled="yes")).json()["total"] == 0


def test_image_files_stay_where_they_are_and_broken_ones_are_told(run, photos, tmp_path):
    workspace = open_workspace(run, str(photos), labels=str(tmp_path / "mine" / "labels.json"))
    listing = asked(workspace, get("/api/images", set="landmarks")).json()
    names = [one["name"] for one in listing["images"]]
    assert names == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "broken.jpg", "more/4.jpg"]
    found = asked(workspace, get("/api/points", set="landmarks", images="0,4,5")).json()
    assert found["4"] == {"error": "not an image"}
    assert len(found["5"]["xy"]) == K
    assert asked(workspace, get("/image/4")).status_code == 422
    assert asked(workspace, get("/image/5")).headers["content-type"] == "image/jpeg"
    asked(workspace, label(5))
    (image,) = json.loads((tmp_path / "mine" / "labels.json").read_text())["images"]
    assert image["file_name"] == "../photos/more/4.jpg"
    labels = read_labels(tmp_path / "mine" / "labels.json")
    assert [np.isfinite(labels.xy[0]).all(axis=1).sum(), len(labels.images)] == [3, 1]
    assert not (tmp_path / "mine" / "images").exists()


def test_a_turned_photo_is_shown_upright_and_labelled_in_its_upright_pixels(run, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(photos / "0.jpg").resize((64, 48))
    folder = tmp_path / "turned"
    folder.mkdir()
    picture.save(folder / "a.jpg", quality=95, exif=exif)
    workspace = open_workspace(run, str(folder))
    found = asked(workspace, get("/api/points", set="landmarks", images="0")).json()["0"]
    assert (found["width"], found["height"]) == (48, 64)
    shown = Image.open(io.BytesIO(asked(workspace, get("/image/0", large="")).content))
    assert (shown.size, shown.getexif().get(0x0112)) == ((48, 64), None)
    asked(workspace, label(0, [[1, 60, 2], None, None, None]))
    labels = read_labels(f"{run.folder}/labels/labels.json")
    np.testing.assert_allclose(labels.xy[0, 0], [1, 60])


def test_two_tabs_do_not_overwrite_each_other(run):
    workspace = open_workspace(run)
    first = asked(workspace, label(0)).json()
    late = asked(workspace, label(0, [None] * K))  # of a tab that knows of no label
    assert (late.status_code, "another tab" in late.json()["error"]) == (409, True)
    other = asked(workspace, label(1)).json()
    assert other["points"] == POINTS  # other images are no conflict
    seen = asked(workspace, label(0, [[5, 5, 2], *POINTS[1:]], revision=first["revision"]))
    assert seen.status_code == 200
    stale = asked(workspace, post("/api/unlabel", {"image": 0, "revision": first["revision"]}))
    assert stale.status_code == 409
    assert asked(workspace, label(2, names=list("abcd"))).status_code == 409  # the points have other names
    assert len(read_labels(f"{run.folder}/labels/labels.json")) == 2


def test_a_file_that_another_program_changed_is_not_overwritten(run):
    workspace = open_workspace(run)
    asked(workspace, label(0))
    path = Path(f"{run.folder}/labels/labels.json")
    changed = path.read_text().replace("object", "creature")
    path.write_text(changed)
    reply = asked(workspace, label(1))
    assert (reply.status_code, "another program" in reply.json()["error"]) == (409, True)
    assert path.read_text() == changed


def test_what_else_a_file_of_labels_has_is_kept(run):
    folder = run.folder / "labels"
    plain = {
        "info": {"by": "me"},
        "images": [{"id": 7, "file_name": "other.jpg"}],
        "annotations": [{"id": 9, "image_id": 7, "category_id": 4, "keypoints": [1, 1, 2] * K}],
        "categories": [{"id": 4, "name": "cow", "keypoints": NAMES, "skeleton": [[1, 2]]}],
    }
    folder.write_json("labels.json", plain)
    workspace = open_workspace(run)
    assert asked(workspace, label(0)).status_code == 200
    now = folder.read_object("labels.json")
    assert now["info"] == plain["info"]
    assert now["annotations"][0] == plain["annotations"][0]
    assert now["annotations"][1]["category_id"] == 4
    assert now["images"][1]["id"] == 8


def test_predictions_in_a_file_are_no_labels(run, photos):
    """As `kplm suggest` writes them."""
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 64} for n in (1, 2)]
    predicted = {"category_id": 1, "keypoints": [9, 9, 2] * K, "score": 0.5, "bbox": [9, 9, 0, 0]}
    plain = {
        "images": images, "categories": [{"id": 1, "name": "", "keypoints": NAMES}],
        "annotations": [{"id": n, "image_id": n, **predicted} for n in (1, 2)],
    }  # fmt: skip
    (photos / "coco.json").write_text(json.dumps(plain))
    workspace = open_workspace(run, str(photos), labels=str(photos / "coco.json"))
    listed = asked(workspace, get("/api/images", set="landmarks")).json()["images"]
    assert [one["label"] for one in listed] == [None] * len(listed)
    asked(workspace, label(1))
    (kept,) = json.loads((photos / "coco.json").read_text())["annotations"]
    assert (kept["image_id"], kept["keypoints"][:3], "score" in kept, "bbox" in kept) == (
        1,
        [1.5, 2.25, 2],
        False,
        False,
    )
    assert len(read_labels(photos / "coco.json")) == 1


def test_own_points_keep_the_places_of_those_that_keep_their_names(run):
    workspace = open_workspace(run)
    assert asked(workspace, post("/api/names", {"names": ["nose", "eye"], "known": []})).status_code == 200
    asked(workspace, label(0, [[1, 1, 2], [2, 2, 1]], ["nose", "eye"]))
    changed = {"names": ["eye", "chin", "nose"], "known": ["nose", "eye"]}
    assert asked(workspace, post("/api/names", changed)).status_code == 200
    assert workspace.labels.labels[0].points == ((2, 2, 1), None, (1, 1, 2))
    assert asked(workspace, post("/api/names", changed)).status_code == 409
    for wrong in ([], ["a", "a"], ["a", " "], ["x" * 65], ["a\nb"]):
        body = {"names": wrong, "known": ["eye", "chin", "nose"]}
        assert asked(workspace, post("/api/names", body)).status_code == 422


def test_landmarks_are_renamed_merged_dropped_and_joined_and_labels_follow(run):
    workspace = open_workspace(run)
    asked(workspace, label(0))
    points = [
        {"landmarks": [1], "name": "nose", "partner": None},
        {"landmarks": [0, 3], "name": "eye", "partner": None},
    ]
    reply = asked(workspace, post("/api/edit", {"points": points, "edges": [["nose", "eye"]]}))
    assert (reply.status_code, reply.json()["set"], reply.json()["notes"]) == (200, "edited", [])
    made = read_point_set(point_folder(run.folder, "edited"))
    assert (made.layout.names, made.layout.skeleton) == (("nose", "eye"), ((0, 1),))
    np.testing.assert_allclose(made.shares, [[0, 1, 0, 0], [0.5, 0, 0, 0.5]])
    state = asked(workspace, get("/api/state")).json()
    assert [one["id"] for one in state["sets"]] == ["landmarks", "edited"]
    assert (state["edited"]["dropped"], state["edited"]["edges"]) == ([2], [["nose", "eye"]])
    assert state["labels"]["names"] == ["landmark_0", "nose", "landmark_2", "landmark_3"]
    both = [asked(workspace, get("/api/points", set=name, images="0")).json()["0"] for name in ("landmarks", "edited")]
    xy = np.array(both[0]["xy"])
    np.testing.assert_allclose(both[1]["xy"], [xy[1], xy[[0, 3]].mean(0)], atol=2e-3)
    assert open_workspace(run)._points == "edited"  # what other commands give by default
    wrong = [{"landmarks": [9], "name": "x", "partner": None}]
    refused = asked(workspace, post("/api/edit", {"points": wrong, "edges": []}))
    assert (refused.status_code, "from 0 to 3" in refused.json()["error"]) == (422, True)
    assert read_point_set(point_folder(run.folder, "edited")).layout.names == ("nose", "eye")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("label", {"image": 99, "points": POINTS, "names": NAMES, "revision": None}),
        ("label", {"image": True, "points": POINTS, "names": NAMES, "revision": None}),
        ("label", {"image": 0, "points": POINTS[:2], "names": NAMES, "revision": None}),
        ("label", {"image": 0, "points": [[1, 2]] * K, "names": NAMES, "revision": None}),
        ("label", {"image": 0, "points": [[1, 2, 0]] * K, "names": NAMES, "revision": None}),
        ("label", {"image": 0, "points": [[1, "2", 2]] * K, "names": NAMES, "revision": None}),
        ("label", {"image": 0, "points": [[1, 1e300, 2]] * K, "names": NAMES, "revision": None}),
        ("label", {"image": 0, "points": POINTS, "names": [1, 2, 3, 4], "revision": None}),
        ("label", {"image": 0, "points": POINTS, "names": NAMES}),
        ("label", {"image": 0, "points": POINTS, "names": NAMES, "revision": None, "more": 1}),
        ("label", [1]),
        ("edit", {"points": [], "edges": []}),
        ("edit", {"points": [{"landmarks": [], "name": "x", "partner": None}], "edges": []}),
        ("edit", {"points": [{"landmarks": [0], "name": "x", "partner": None}], "edges": [["x", "y"]]}),
        ("edit", {"points": [{"landmarks": [0.5], "name": "x", "partner": None}], "edges": []}),
        ("adapt", {"name": "../x"}),
        ("adapt", {"name": "edited"}),
    ],
)
def test_bodies_that_are_wrong_are_one_line_and_change_nothing(path, body, run):
    reply = asked(open_workspace(run), post(f"/api/{path}", body))
    assert reply.status_code == 422
    assert reply.json()["error"].count("\n") == 0
    assert not (run.folder / "labels").exists()
    assert not (run.folder / "points").exists()


def test_bodies_that_are_no_json_or_too_large_are_refused(run):
    workspace = open_workspace(run)
    sent = [
        (b"{", "application/json", 422), (b"[" * 100_000, "application/json", 422), (b"{}", "text/plain", 415),
        (b" " * (1 << 21), "application/json", 413), (b'{"image": NaN}', "application/json", 422),
    ]  # fmt: skip
    for content, kind, status in sent:
        reply = asked(
            workspace,
            lambda client, c=content, k=kind: client.post("/api/label", content=c, headers={"Content-Type": k}),
        )
        assert reply.status_code == status, content[:20]


@pytest.mark.parametrize(
    "query",
    [
        {"set": "other"},
        {"order": "worst"},
        {"point": 4},
        {"point": "x"},
        {"offset": "x"},
        {"below": "x"},
        {"set": "../x"},
    ],
)
def test_questions_that_are_wrong_are_one_line(query, run):
    reply = asked(open_workspace(run), get("/api/images", **{"set": "landmarks", **query}))
    assert (reply.status_code, "error" in reply.json()) == (422, True)


def test_no_more_images_than_a_page_are_given_at_once(run):
    many = ",".join(["0"] * 201)
    assert asked(open_workspace(run), get("/api/points", set="landmarks", images=many)).status_code == 422


def test_a_storage_that_refuses_is_told(run, monkeypatch):
    workspace = open_workspace(run)

    def full(name, content, durable=True):
        raise OSError(28, "No space left on device", name)

    monkeypatch.setattr(type(workspace.labels.folder), "write_bytes", lambda self, *arguments, **more: full(*arguments))
    reply = asked(workspace, label(0))
    assert (reply.status_code, "No space left" in reply.json()["error"]) == (507, True)
    monkeypatch.undo()
    assert asked(workspace, label(0)).status_code == 200  # what failed is not half done
