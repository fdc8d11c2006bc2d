"""`kplm edit`: what holds after each command, what is kept, and that all later outputs follow. No Ray, no training."""

import io
import json

import numpy as np
import pytest
import ray
from PIL import Image

from ray_kplm.analysis.contact_sheet import draw_sheet
from ray_kplm.analysis.edit import present
from ray_kplm.analysis.edit_suggestion import SAMPLE
from ray_kplm.analysis.predictions import predictor
from ray_kplm.cli.main import main
from ray_kplm.detectors.stored import export
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.verify import verify

FIRST = "points:\n  - {landmark: 2, name: nose}\n  - {landmarks: [0, 3], name: näse}\nedges: [[nose, 0]]\n"
SECOND = "points: [{landmark: 1, name: tail}]\ndropped: [0, 2, 3]\n"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))


@pytest.fixture
def run(noise_run) -> Run:
    return noise_run


@pytest.fixture
def edit(run, tmp_path, capsys):
    """Calls `kplm edit RUN ...` and returns the exit code, standard output and standard error. Text is put into a file."""

    def call(*arguments: str, text: str | None = None) -> tuple[int, str, str]:
        if text is not None:
            (tmp_path / "points.yaml").write_text(text, encoding="utf-8")
            arguments = (str(tmp_path / "points.yaml"), *arguments)
        code = main(["edit", str(run.folder), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def kept(run) -> dict[str, str]:
    folder = run.folder / "points" / "edited"
    return {name: folder.read_bytes(name).decode() for name in folder.walk() if name.startswith("versions")}


def test_an_edit_is_applied_kept_and_followed_by_every_output(run, edit):
    code, out, _ = edit(text=FIRST)
    assert code == 0
    table = [line.split() for line in out.splitlines()]
    assert table[:3] == [
        ["point", "landmarks", "partner", "joined", "to"],
        ["nose", "2", "-", "näse"],
        ["näse", "0", "3", "-", "nose"],
    ]
    assert "2 points of 3 landmarks, 1 edges, version 1; dropped: 1" in out
    assert "points.yaml, so dropped: 1" in out
    assert kept(run) == {"versions/0001.yaml": FIRST}
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    plain = LandmarkDetector.load(run.folder.path, device="cpu", points="landmarks")
    points = LandmarkDetector.load(run.folder.path, device="cpu")
    assert (points.names, points.layout.skeleton) == (("nose", "näse"), ((0, 1),))
    [raw], [made] = plain.predict(picture), points.predict(picture)
    np.testing.assert_allclose(made.xy, [raw.xy[2], raw.xy[[0, 3]].mean(0)], atol=1e-3)
    assert len(predictor(run, STAGE2)[0].layout) == 4  # evaluation keeps to the landmarks


def test_versions_are_kept_and_undone_and_the_same_file_adds_none(run, edit):
    edit(text=FIRST)
    assert "version 1" in edit(text=FIRST)[1]
    assert "1 of 4 landmarks, 0 edges, version 2; dropped: 0, 2, 3" in edit(text=SECOND)[1]
    assert kept(run) == {"versions/0001.yaml": FIRST, "versions/0002.yaml": SECOND}
    assert "version 1;" in edit("--undo")[1]
    assert present(run).points.layout.names == ("nose", "näse")
    listed = json.loads(edit("--list", "--json")[1])["versions"]
    assert [(v["version"], v["points"], v["dropped"], v["holds"]) for v in listed] == [
        (1, 2, [1], True),
        (2, 1, [0, 2, 3], False),
    ]
    assert "the landmarks themselves" in edit("--undo")[1]
    code, _, err = edit("--undo")
    assert code == 2
    assert err.endswith("versions/0002.yaml` applies the last version\n")
    assert "version 2;" in edit(f"{run.folder}/points/edited/versions/0002.yaml")[1]
    assert "4 of 4 landmarks, 0 edges, the landmarks themselves; none dropped" in edit("--reset")[1]
    assert len(kept(run)) == 2
    assert LandmarkDetector.load(run.folder.path, device="cpu").landmarks == 4
    assert "version 3;" in edit(text=FIRST + "# another\n")[1]


def test_without_a_file_it_shows_what_holds_and_changes_nothing(run, edit):
    before = run.folder.walk()
    assert json.loads(edit("--json")[1])["points"][3] == {"name": "landmark_3", "landmarks": [3], "partner": None}
    assert "no versions" in edit("--list")[1]
    assert run.folder.walk() == before
    edit(text=FIRST)
    shown = json.loads(edit("--json")[1])
    assert shown["edges"] == [["nose", "näse"]]
    assert (shown["dropped"], shown["version"], shown["notes"]) == ([1], 1, [])


@pytest.mark.parametrize(("arguments", "code", "line"), [
    (["missing.yaml"], 3, "no such file; `kplm edit"),
    (["--undo"], 2, "nothing to undo"),
    (["a.yaml", "b.yaml"], 2, "one file at most"),
    (["a.yaml", "--reset"], 2, "--reset takes no file"),
    (["--force"], 2, "belongs to --suggest"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line_and_changes_nothing(run, edit, arguments, code, line):
    before = run.folder.walk()
    ended, out, err = edit(*arguments)
    assert (ended, out) == (code, "")
    assert line in err
    assert len(err.splitlines()) == 1
    assert run.folder.walk() == before


def test_a_wrong_file_leaves_what_held(run, edit):
    edit(text=FIRST)
    code, _, err = edit(text="points: [{landmark: 9, name: a}]")
    assert code == 2
    assert "line 1: landmark: 9 is no landmark; the run has those from 0 to 3" in err
    assert present(run).version == 1
    assert len(kept(run)) == 1


def test_an_exported_detector_has_no_edit(run, tmp_path, capsys):
    export(run, Folder.at(tmp_path / "detector"))
    assert main(["edit", str(tmp_path / "detector")]) == 4
    assert "edit the points of its run" in capsys.readouterr().err


def test_a_damaged_set_is_found_and_the_same_file_writes_it_again(run, edit):
    edit(text=FIRST)
    folder = run.folder / "points" / "edited"
    folder.write_bytes("points.json", folder.read_bytes("points.json").replace(b"nose", b"nase"))
    code, _, err = edit()
    assert code == 4
    assert "points.json" in err
    (fault,) = verify(run.folder).faults
    assert fault.path == "points/edited/points.json"
    found = verify(run.folder, repair=True)
    assert found.commands() == [f"kplm edit {run.folder} FILE   # one of {run.folder}/points/edited/versions"]
    assert not verify(run.folder).faults
    assert edit(text=FIRST)[0] == 0
    assert present(run).version == 1


def test_a_suggestion_is_written_with_its_picture_and_is_valid_as_it_is(run, edit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = run.folder.walk()
    code, out, _ = edit("--suggest", "new.yaml", "--json")
    assert code == 0
    said = json.loads(out)
    assert (said["file"], said["picture"]) == ("new.yaml", "new.png")
    assert said["images"] == min(SAMPLE, 7)
    assert run.folder.walk() == before
    with Image.open(tmp_path / "new.png") as picture:
        assert picture.width == 4 * 288
    assert f"kplm edit {run.folder} new.yaml" in (tmp_path / "new.yaml").read_text()
    code, _, err = edit("--suggest", "new.yaml")
    assert (code, "--force to replace it" in err) == (4, True)
    (tmp_path / "new.yaml").write_text("mine")
    assert edit("--suggest", "new.yaml", "--force")[0] == 0
    code, out, _ = edit("new.yaml")
    assert code == 0
    assert "4 of 4 landmarks" in out
    assert "none dropped" in out
    assert edit("--suggest")[0] == 0
    assert (tmp_path / "run-points.yaml").exists()


def test_contact_sheets_show_the_points_of_an_edit_and_others_if_asked(run, edit):
    plain = draw_sheet(run, count=3, tile=64)
    edit(text=FIRST)
    edited = draw_sheet(run, count=3, tile=64)
    assert edited != plain
    titled = np.asarray(Image.open(io.BytesIO(plain)))
    again = np.asarray(Image.open(io.BytesIO(draw_sheet(run, count=3, tile=64, points="landmarks"))))
    np.testing.assert_array_equal(again, titled)
