"""Pushing to a model hub and loading from it, against one on loopback; what goes wrong is one line, without the token."""

import json
import socket

import numpy as np
import pytest

from ray_kplm.cli.main import main
from ray_kplm.detectors import hub as hub_module
from ray_kplm.detectors.hub import check_name, local_folder, push
from ray_kplm.detectors.pretrained_config import MODEL_CONFIG, WEIGHTS
from ray_kplm.detectors.stored import export_pretrained
from ray_kplm.errors import ConfigError, DataError, StorageError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.storage import Folder

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123456789"
FILES = [MODEL_CONFIG, WEIGHTS, "README.md"]


@pytest.fixture
def shared(run, tmp_path):
    export_pretrained(run, Folder.at(tmp_path / "shared"))
    (tmp_path / "shared" / "README.md").write_text("---\nlicense: other\n---\nA card.\n")
    return str(tmp_path / "shared")


@pytest.fixture
def pushed(hub, shared):
    push(shared, "me/creatures", FILES, message="First")
    return hub


def of(detector: LandmarkDetector, picture) -> np.ndarray:
    (found,) = detector.predict([picture()])
    return np.concatenate([found.xy.ravel(), found.confidence, found.probability])


def test_push_then_from_pretrained_gives_the_same_predictions(hub, run, picture, capsys):
    """By the command: the files are one commit, and no other file leaves."""
    assert main(["push", str(run.folder.path), "me/creatures", "--private", "--license", "cc-by-4.0", "--json"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["url"] == f"{hub.url}/me/creatures"
    assert hub.branches["me/creatures"]["main"] == figures["commit"]
    files = hub.commits["me/creatures"][figures["commit"]]
    assert files.keys() == figures["files"].keys() == set(FILES)
    assert hub.private["me/creatures"]
    assert b'from_pretrained("me/creatures")' in files["README.md"]
    assert b"license: cc-by-4.0\n" in files["README.md"]
    loaded = LandmarkDetector.from_pretrained("me/creatures", device="cpu")
    expected = LandmarkDetector.load(run.folder.path, device="cpu")
    np.testing.assert_array_equal(of(loaded, picture), of(expected, picture))
    assert TOKEN not in out + err


def test_a_folder_is_uploaded_as_it_is_and_a_second_push_is_a_second_commit(hub, shared, capsys):
    assert main(["push", shared, "me/creatures", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["commit"]
    with open(f"{shared}/README.md", "a") as card:
        card.write("Edited.\n")
    assert main(["push", shared, "me/creatures", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)["commit"]
    assert b"Edited" not in hub.commits["me/creatures"][first]["README.md"]
    assert hub.commits["me/creatures"][second]["README.md"].endswith(b"Edited.\n")


def test_revisions_are_branches_and_commits(pushed, shared, finished_run, tmp_path, picture):
    first = pushed.branches["me/creatures"]["main"]
    other = finished_run(tmp_path / "other", seed=8)
    export_pretrained(other, Folder.at(shared))
    done = push(shared, "me/creatures", FILES, message="Second", revision="v2")
    assert pushed.branches["me/creatures"] == {"main": first, "v2": done.commit}
    expected = of(LandmarkDetector.load(other.folder.path, device="cpu"), picture)
    for revision, same in (("v2", True), (done.commit, True), (None, False), (first, False)):
        found = of(LandmarkDetector.from_pretrained("me/creatures", revision=revision, device="cpu"), picture)
        assert np.array_equal(found, expected) == same


def test_without_a_connection_the_downloaded_model_is_used(pushed, monkeypatch, picture):
    expected = of(LandmarkDetector.from_pretrained("me/creatures", device="cpu"), picture)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(pushed.asked)
    np.testing.assert_array_equal(of(LandmarkDetector.from_pretrained("me/creatures", device="cpu"), picture), expected)
    assert len(pushed.asked) == before
    with pytest.raises(StorageError, match="me/others: the model hub cannot be reached, and it was not downloaded"):
        LandmarkDetector.from_pretrained("me/others")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_hub_that_is_away_is_one_line(hub, shared, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(StorageError, match="the model hub cannot be reached") as raised:
        local_folder("me/creatures")
    assert "\n" not in str(raised.value)
    with pytest.raises(StorageError, match="the model hub cannot be reached") as raised:
        push(shared, "me/creatures", FILES, message="First")
    assert "\n" not in str(raised.value)


def test_a_hub_that_never_answers_is_given_up(hub, shared, monkeypatch):
    monkeypatch.setattr(hub_module, "LIMIT_S", 0.5)
    hub.silent.set()
    with pytest.raises(StorageError, match="me/creatures: the model hub did not finish in 1 s"):
        push(shared, "me/creatures", FILES, message="First")
    with pytest.raises(StorageError, match="the model hub did not finish in"):
        local_folder("me/creatures")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "status 401 .*the token is not valid or has expired"),
        (403, "status 403 .*set HF_TOKEN to one that may write there"),
        (413, "status 413 .*too large for the hub"),
    ],
)
def test_a_refusal_is_one_line_without_the_token(hub, shared, status, message, capfd):
    hub.refuse["/commit/"] = status
    with pytest.raises(StorageError, match=message) as raised:
        push(shared, "me/creatures", FILES, message="First")
    assert "\n" not in str(raised.value)
    assert TOKEN not in str(raised.value) + "".join(capfd.readouterr())


def test_a_namespace_of_others_and_a_wrong_token_are_refused(hub, shared, monkeypatch):
    with pytest.raises(StorageError, match="others/creatures: the model hub refuses with status 403"):
        push(shared, "others/creatures", FILES, message="First")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(StorageError, match="refuses with status 401"):
        push(shared, "me/creatures", FILES, message="First")


def test_without_a_token_nothing_is_asked(hub, run, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(run.folder.path), "me/creatures"]) == ConfigError.exit_code
    assert capsys.readouterr().err.strip() == (
        "kplm: no token for the model hub: set HF_TOKEN to one that may write, or run `hf auth login`"
    )
    assert not hub.asked


def test_what_is_not_on_the_hub_is_one_line(pushed, monkeypatch):
    for name, revision, message in (
        ("me/nothing", None, "me/nothing: no such model on the hub, or a private one"),
        ("me/creatures", "v9", "me/creatures at v9: no such branch, tag or commit"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            LandmarkDetector.from_pretrained(name, revision=revision)
        assert "\n" not in str(raised.value)
    pushed.private["me/creatures"] = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DataError, match="no such model on the hub, or a private one"):
        LandmarkDetector.from_pretrained("me/creatures")


def test_a_model_of_another_kind_is_one_line(pushed):
    commit = pushed.branches["me/creatures"]["main"]
    files = pushed.commits["me/creatures"][commit]
    files[MODEL_CONFIG] = b'{"model_type": "bert"}'
    with pytest.raises(DataError, match="is of a model of bert"):
        LandmarkDetector.from_pretrained("me/creatures")
    del files[WEIGHTS]
    with pytest.raises(DataError, match=r"me/creatures: has no model\.safetensors on the hub"):
        LandmarkDetector.from_pretrained("me/creatures")


@pytest.mark.parametrize("name", ["creatures", "a/b/c", "me/", "/me", "me/..", "me/a--b", "me/a b", "me/x.git", "mé/x"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(ConfigError, match="is no name on a model hub; give user/name"):
        check_name(name)


def test_paths_are_folders(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").mkdir()
    for path in (shared, "a/b", "./a"):
        assert local_folder(path) == path
    for path in ("./nowhere", "no", "/no/where/at/all"):
        with pytest.raises(DataError, match="no such folder; give a folder that"):
            local_folder(path)
    with pytest.raises(ConfigError, match="is a folder, which has none"):
        local_folder("a/b", "v2")
