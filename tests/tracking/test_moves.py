"""Run directories that were moved or copied, with and without their database, and folders with odd names."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from ray_kplm.config import load_config
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking import add_evaluation, add_picture, audit, send_pending, track_group, track_run
from ray_kplm.tracking.moves import is_copy, relocate
from ray_kplm.tracking.record import Record, StoreLocation, sqlite_path, sqlite_uri

DATASET = {"name": "cats"}
ODD_NAMES = ["my%20runs", "what?x=1", "50% #1 & 'more\"", "größe ünd 写真", "a%2Fb;c", "%", "写" * 60]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """A database with MLflow's tables, which take a second to make."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def new_home(empty_database, monkeypatch) -> Callable[[Path], Path]:
    """Make a folder of runs with a database of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True)
        shutil.copy(empty_database, folder / "mlflow.db")
        return folder

    return make


@pytest.fixture
def home(new_home, tmp_path) -> Path:
    return new_home(tmp_path / "home")


def new_run(home: Path, name: str = "run") -> Run:
    return Run.start(load_config(None, [f"run={home / name}"])).save()


def tracked(home: Path, name: str = "run") -> Run:
    """A finished run with a curve and a picture."""
    run = new_run(home, name)
    with track_run(run, DATASET) as tracker:
        tracker.log_metrics({"loss": 0.5}, 40)
    add_picture(run, b"of the original", "test.png")
    return run


def record_of(run: Run) -> dict:
    return run.folder.read_json("mlflow.json")


def pictures(folder: Path) -> dict[str, bytes]:
    """Run id -> content of its picture, by the files below a folder of runs."""
    return {path.parts[-4]: path.read_bytes() for path in folder.glob("mlartifacts/*/artifacts/evaluation/test.png")}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_added_to_a_copied_folder_lands_in_the_copy(home, tmp_path, stored, capsys):
    run = tracked(home)
    before = snapshot(home)
    shutil.copytree(home, tmp_path / "copy")
    copy = Run.open(f"{tmp_path}/copy/run")
    capsys.readouterr()
    add_picture(copy, b"of the copy", "test.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/copy/mlflow.db was moved or copied here from {home}" in line
    add_evaluation(copy, {"forward_nme": 4.2})
    assert capsys.readouterr().err == ""  # it is said once
    assert snapshot(home) == before
    identity = record_of(run)["run_id"]
    assert record_of(copy)["run_id"] == identity
    assert pictures(tmp_path / "copy") == {identity: b"of the copy"}
    found = stored(copy)
    assert found.data.metrics["evaluation/forward_nme"] == 4.2
    assert found.info.artifact_uri == f"file://{tmp_path}/copy/mlartifacts/{identity}/artifacts"
    assert found.data.tags["run_directory"] == f"{tmp_path}/copy/run"
    assert audit(copy)["runs"] == 1
    add_picture(run, b"new of the original", "test.png")
    assert pictures(home) == {identity: b"new of the original"}
    assert pictures(tmp_path / "copy") == {identity: b"of the copy"}


def test_a_copied_run_is_trained_on_in_the_copy(home, tmp_path, curve):
    run = tracked(home)
    before = snapshot(home)
    shutil.copytree(home, tmp_path / "copy")
    copy = Run.open(f"{tmp_path}/copy/run")
    with track_run(copy, DATASET) as tracker:
        tracker.log_metrics({"loss": 0.4}, 40)
        tracker.log_metrics({"loss": 0.3}, 50)
        new = tracked(tmp_path / "copy", "another")  # the experiment is that of the original, at its new place
    assert snapshot(home) == before
    assert curve(copy, "loss") == [(40, 0.5), (50, 0.3)]
    assert curve(run, "loss") == [(40, 0.5)]
    assert pictures(tmp_path / "copy")[record_of(new)["run_id"]] == b"of the original"


def test_a_moved_folder_goes_on_where_it_is(home, tmp_path, curve):
    identity = record_of(tracked(home))["run_id"]
    home.rename(tmp_path / "moved")
    moved = Run.open(f"{tmp_path}/moved/run")
    add_picture(moved, b"after the move", "test.png")
    with track_run(moved, DATASET) as tracker:
        assert tracker.run_id == identity
        tracker.log_metrics({"loss": 0.3}, 50)
    assert not home.exists()
    assert pictures(tmp_path / "moved") == {identity: b"after the move"}
    assert curve(moved, "loss") == [(40, 0.5), (50, 0.3)]
    assert record_of(moved)["tracking_uri"] == f"sqlite:///{tmp_path}/moved/mlflow.db"


def test_a_copy_without_the_files_says_where_the_earlier_ones_are(home, tmp_path, capsys):
    identity = record_of(tracked(home))["run_id"]
    shutil.copytree(home, tmp_path / "copy", ignore=shutil.ignore_patterns("mlartifacts"))
    capsys.readouterr()
    add_picture(Run.open(f"{tmp_path}/copy/run"), b"of the copy", "test.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"files that were logged before stay in {home}/mlartifacts")
    assert pictures(home) == {identity: b"of the original"}
    assert pictures(tmp_path / "copy") == {identity: b"of the copy"}


def test_a_moved_database_that_the_environment_names_is_the_one_beside_the_run(home, tmp_path, monkeypatch):
    identity = record_of(tracked(home))["run_id"]
    home.rename(tmp_path / "moved")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/moved/mlflow.db")
    with track_run(Run.open(f"{tmp_path}/moved/run"), DATASET) as tracker:
        assert tracker.run_id == identity
        tracker.log_file("evaluation/test.png", b"after the move")
    assert not home.exists()
    assert pictures(tmp_path / "moved") == {identity: b"after the move"}


@pytest.mark.parametrize("act", ["view", "train", "send"])
def test_a_copy_in_the_same_store_gets_a_run_of_its_own(home, stored, curve, capsys, act):
    run = tracked(home)
    shutil.copytree(home / "run", home / "copy")
    copy = Run.open(f"{home}/copy")
    capsys.readouterr()
    if act == "train":
        with track_run(copy, DATASET) as tracker:
            tracker.log_metrics({"loss": 0.4}, 40)
            tracker.log_metrics({"loss": 0.3}, 50)
    elif act == "send":
        (copy.folder / "tracking" / "files").write_bytes("evaluation/test.png", b"of the copy")
        send_pending(copy, DATASET)
    add_picture(copy, b"of the copy", "test.png")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"kplm: {home}/copy is a copy of {home}/run, whose MLflow run stays as it is: the copy gets one of its own"
    ]
    first, second = record_of(run)["run_id"], record_of(copy)["run_id"]
    assert first != second
    assert pictures(home) == {first: b"of the original", second: b"of the copy"}
    assert stored(run).data.tags["run_directory"] == f"{home}/run"
    found = stored(copy)
    assert found.data.tags["run_directory"] == f"{home}/copy"
    assert found.data.tags["kplm.copied_from"] == first
    assert found.data.params == stored(run).data.params
    assert found.info.status == "FINISHED"
    assert found.info.experiment_id == stored(run).info.experiment_id
    assert curve(copy, "loss") == [(40, 0.5)] + [(50, 0.3)] * (act == "train")
    assert curve(run, "loss") == [(40, 0.5)]


def test_a_copy_of_a_run_of_the_previous_version_is_noticed(home, tmp_path):
    """Its record does not say where it was; the MLflow run does."""
    run = tracked(home)
    run.folder.write_json(
        "mlflow.json", {k: v for k, v in record_of(run).items() if k not in ("place", "host", "database")}
    )
    shutil.copytree(home / "run", home / "copy")
    shutil.copytree(home, tmp_path / "elsewhere")
    for folder in (home / "copy", tmp_path / "elsewhere" / "run"):
        add_picture(Run.open(str(folder)), f"of {folder}".encode(), "test.png")
    first, second = record_of(run)["run_id"], record_of(Run.open(f"{home}/copy"))["run_id"]
    assert pictures(home) == {first: b"of the original", second: f"of {home}/copy".encode()}
    assert pictures(tmp_path / "elsewhere") == {first: f"of {tmp_path}/elsewhere/run".encode()}
    copied = record_of(Run.open(f"{tmp_path}/elsewhere/run"))
    assert copied["place"] == f"{tmp_path}/elsewhere/run"
    assert copied["tracking_uri"] == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"


def test_a_renamed_run_and_a_link_to_it_keep_their_mlflow_run(home, stored, capsys):
    identity = record_of(tracked(home))["run_id"]
    (home / "run").rename(home / "renamed")
    (home / "latest").symlink_to("renamed")
    capsys.readouterr()
    for name in ("renamed", "latest", "renamed"):
        run = Run.open(f"{home}/{name}")
        add_picture(run, name.encode(), "test.png")
        assert record_of(run)["run_id"] == identity
        assert pictures(home) == {identity: name.encode()}
        assert stored(run).data.tags["run_directory"] == f"{home}/{name}"
    assert capsys.readouterr().err == ""


def test_a_run_copied_without_its_database_makes_none_until_it_is_trained(home, tmp_path, capsys):
    run = tracked(home)
    before = snapshot(home)
    shutil.copytree(home / "run", tmp_path / "alone" / "run")
    alone = Run.open(f"{tmp_path}/alone/run")
    capsys.readouterr()
    add_picture(alone, b"of the copy", "test.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert f"MLflow run {record_of(run)['run_id']} is no longer at" in line
    assert "there is no such file" in line
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == ["run"]
    with track_run(alone, DATASET) as tracker:
        assert tracker.run_id not in ("", record_of(run)["run_id"])
    assert (tmp_path / "alone" / "mlflow.db").exists()
    assert snapshot(home) == before


def test_a_copied_group_goes_on_in_the_copy(tmp_path, new_home):
    new_home(tmp_path / "group")
    child = new_run(tmp_path / "group" / "deep", "child")
    with track_group(Folder.at(tmp_path / "group"), DATASET, {}) as group, track_run(child, DATASET, group.parent):
        group.log_file("rows.json", b"[]")
    before = snapshot(tmp_path / "group")
    shutil.copytree(tmp_path / "group", tmp_path / "copy")
    copy = Run.open(f"{tmp_path}/copy/deep/child")
    add_picture(copy, b"of the copy", "test.png")
    with track_group(Folder.at(tmp_path / "copy"), DATASET, {}) as again:
        again.log_file("rows.json", b"[1]")
        assert again.run_id == group.run_id
    assert snapshot(tmp_path / "group") == before
    assert pictures(tmp_path / "copy") == {record_of(child)["run_id"]: b"of the copy"}
    assert (tmp_path / "copy" / "mlartifacts" / group.run_id / "artifacts" / "rows.json").read_bytes() == b"[1]"


def test_a_copy_on_a_server_is_a_copy_and_a_moved_run_is_none(tmp_path):
    server = StoreLocation("http://mlflow.example.com")
    original = Record(Folder.at(tmp_path / "run"))
    original.adopt("1" * 32, server)
    place = str(tmp_path / "run")
    assert not is_copy(original, place, server)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    copy = Record(Folder.at(tmp_path / "copy"))
    assert is_copy(copy, place, server)
    assert is_copy(copy, "s3://bucket/runs/run", server)  # downloaded from there
    original.update(run_id="2" * 32)
    assert not is_copy(copy, place, server)  # another run took its place
    shutil.rmtree(tmp_path / "run")
    assert not is_copy(copy, place, server)
    copy.update(host="another-machine")
    assert is_copy(copy, place, server)  # whether the original is there cannot be seen from here


def test_only_paths_of_the_default_database_are_changed(tmp_path):
    """MLflow's own defaults, other stores, and names that only begin alike stay."""
    database, old, new = tmp_path / "mlflow.db", "file:///old/a%20b/mlartifacts", f"file://{tmp_path}/mlartifacts"
    others = ["mlflow-artifacts:/1", "s3://bucket/mlartifacts", "./mlruns/0", "file:///old/a%20b/mlruns", None]
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        connection.execute("CREATE TABLE runs (artifact_uri TEXT)")
        connection.execute("CREATE TABLE logged_models (artifact_location TEXT)")
        connection.execute("CREATE TABLE tags (key TEXT, value TEXT)")
        connection.executemany("INSERT INTO experiments VALUES (?)", [(old,), *((other,) for other in others)])
        runs = [f"{old}/1/artifacts", f"{old}2/1/artifacts", "s3://bucket/mlartifacts/2"]
        connection.executemany("INSERT INTO runs VALUES (?)", [(uri,) for uri in runs])
        connection.execute("INSERT INTO logged_models VALUES (?)", (f"{old}/models/m-1/artifacts",))
        tags = [("run_directory", "/old/a b/run"), ("run_directory", "/old/a bc/run"), ("note", "/old/a b/run")]
        connection.executemany("INSERT INTO tags VALUES (?, ?)", tags)
    connection.close()
    assert relocate(database, new) == [Path("/old/a b")]
    assert relocate(database, new) == []
    with sqlite3.connect(database) as connection:
        read = lambda query: [row[0] for row in connection.execute(query)]  # noqa: E731
        assert read("SELECT artifact_location FROM experiments") == [new, *others]
        assert read("SELECT artifact_uri FROM runs") == [f"{new}/1/artifacts", *runs[1:]]
        assert read("SELECT artifact_location FROM logged_models") == [f"{new}/models/m-1/artifacts"]
        assert read("SELECT value FROM tags") == [f"{tmp_path}/run", "/old/a bc/run", "/old/a b/run"]
    connection.close()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_uri_of_a_database_leads_back_to_its_path(name):
    from sqlalchemy.engine import make_url

    path = f"/data/{name}/mlflow.db"
    assert sqlite_path(sqlite_uri(path)) == path
    assert make_url(sqlite_uri(path)).database == path
    assert sqlite_path("sqlite:////data/mlflow.db?timeout=30") == "/data/mlflow.db"
    assert sqlite_path("http://host/mlflow.db") is None


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_of_any_name_holds_its_database_and_files(name, tmp_path, new_home, stored):
    new_home(tmp_path / "all" / name)
    run = tracked(tmp_path / "all" / name, f"{name}-run")
    again = Run.open(f"{tmp_path}/all/{name}/{name}-run")
    add_evaluation(again, {"forward_nme": 4.2})
    assert [path.name for path in (tmp_path / "all").iterdir()] == [name]
    assert {p.name for p in (tmp_path / "all" / name).iterdir()} <= {
        f"{name}-run",
        "mlflow.db",
        "mlartifacts",
        ".mlflow.db.lock",
    }
    identity = record_of(run)["run_id"]
    assert pictures(tmp_path / "all" / name) == {identity: b"of the original"}
    assert stored(again).data.metrics["evaluation/forward_nme"] == 4.2
    uri = record_of(run)["tracking_uri"]
    got = mlflow.artifacts.download_artifacts(
        run_id=identity, artifact_path="evaluation/test.png", tracking_uri=uri, dst_path=tmp_path
    )
    assert Path(got).read_bytes() == b"of the original"
    (tmp_path / "all" / name).rename(tmp_path / "all" / f"{name} moved")
    moved = Run.open(f"{tmp_path}/all/{name} moved/{name}-run")
    add_picture(moved, b"moved", "test.png")
    assert pictures(tmp_path / "all" / f"{name} moved") == {identity: b"moved"}
    assert [path.name for path in (tmp_path / "all").iterdir()] == [f"{name} moved"]
