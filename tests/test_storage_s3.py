"""The same guarantees on an object store, with a real S3 server: complete files, listings, deletion, the lock."""

from __future__ import annotations

import pickle
import threading
import time

import pyarrow as pa
import pytest

from ray_kplm import storage
from ray_kplm.config import load_config
from ray_kplm.errors import RunError, StorageError
from ray_kplm.run import Run
from ray_kplm.run_lock import lock_folder
from ray_kplm.storage import Folder, copy_file


def test_what_is_written_is_listed_read_and_deleted(s3):
    folder = Folder.at(f"{s3}/run")
    assert not folder.exists()
    assert folder.names() == folder.folders() == []
    table = pa.table({"a": [1, 2, 3]})
    for name in ("part-00001.parquet", "part-00000.parquet"):
        (folder / "labels").write_table(name, table)
    folder.write_json("config.json", {"a": 1})
    assert folder.folders() == ["labels"]
    assert folder.names() == ["config.json"]
    assert (folder / "labels").parts() == ["part-00000.parquet", "part-00001.parquet"]
    assert (folder / "labels").read_table("part-00001.parquet").equals(table)
    assert (folder / "labels").rows("part-00001.parquet") == 3
    assert folder.is_file("config.json")
    assert not folder.is_file("labels")
    folder.write_json("config.json", {"a": 2})
    assert folder.read_json("config.json") == {"a": 2}
    copy_file(folder, folder / "copy", "config.json")
    assert (folder / "copy").read_json("config.json") == {"a": 2}
    (folder / "labels").delete_file("part-00000.parquet")
    assert (folder / "labels").parts() == ["part-00001.parquet"]
    (folder / "labels").delete()
    (folder / "nothing").delete()
    assert (folder / "labels").parts() == []
    assert folder.names() == ["config.json"]


def interrupt(folder: Folder, name: str) -> None:
    with folder.writing(name) as stream:
        stream.write(b"half of the n")
        raise KeyError


def test_a_write_that_fails_publishes_nothing(s3):
    folder = Folder.at(f"{s3}/run")
    folder.write_bytes("old.bin", b"old")
    for name in ("old.bin", "new.bin"):
        with pytest.raises(KeyError):
            interrupt(folder, name)
    assert folder.names() == ["old.bin"]
    assert folder.read_bytes("old.bin") == b"old"


def test_nothing_appears_before_the_end_and_large_files_come_back(s3, monkeypatch):
    monkeypatch.setattr(storage, "_MEMORY_BYTES", 2**20)
    folder = Folder.at(f"{s3}/run")
    piece = bytes(range(256)) * 4096
    with folder.writing("large.bin") as stream:
        for _ in range(20):  # two uploaded parts
            stream.write(piece)
        assert not folder.exists("large.bin")
    assert folder.size("large.bin") == 20 * len(piece)
    assert folder.read_bytes("large.bin") == 20 * piece


def test_the_endpoint_may_be_in_the_uri_and_is_pickled(s3, s3_endpoint, monkeypatch):
    Folder.at(f"{s3}/run").write_bytes("a", b"1")
    by_environment = pickle.dumps(Folder.at(f"{s3}/run"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    by_uri = Folder.at(f"{s3}/run?endpoint_override={s3_endpoint}&scheme=http")
    for folder in (by_uri, pickle.loads(pickle.dumps(by_uri)), pickle.loads(by_environment)):
        assert folder.read_bytes("a") == b"1"
    assert str(by_uri) == f"{s3}/run"


def test_a_run_directory(s3):
    config = load_config(None, [f"run={s3}/run", "method.landmarks=4"])
    Run.start(config).save()
    run = Run.open(f"{s3}/run")
    assert run.config == config
    step = run.step("stage2", "landmarks", {"seed": 0}, {})
    step.begin()
    assert step.manifest() is None
    step.finish(images=3)
    assert run.manifest("stage2")["images"] == 3
    with pytest.raises(RunError, match="not empty"):
        Run.start(load_config(None, [f"run={s3}/run/stage2"]))


def test_a_second_driver_is_refused(s3):
    folder = Folder.at(f"{s3}/run")
    with lock_folder(folder, beat_s=0.05):
        with pytest.raises(RunError, match="in use by host"), lock_folder(folder):
            pass
        Run.start(load_config(None, [f"run={s3}/run"]))  # a claim does not make the folder anything else
    with lock_folder(folder):
        pass
    assert folder.names() == []


def test_requests_are_repeated_while_the_server_is_down(s3, monkeypatch):
    from moto.server import ThreadedMotoServer

    def serve(port: int) -> ThreadedMotoServer:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        return server

    server = serve(0)  # of the same buckets: they are this process'
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    folder = Folder.at(f"{s3}/run")
    folder.write_bytes("old", b"1")
    server.stop()
    server._server.server_close()
    comes_back = threading.Timer(4.0, lambda: servers.append(serve(port)))
    servers: list[ThreadedMotoServer] = []
    comes_back.start()
    folder.write_bytes("new", b"2")
    assert servers, "it was not away"
    assert [folder.read_bytes(name) for name in ("old", "new")] == [b"1", b"2"]
    servers[0].stop()


def test_a_missing_bucket_is_an_error_at_once(s3, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda s: pytest.fail("it waits"))
    with pytest.raises(StorageError, match="NO_SUCH_BUCKET"):
        Folder.at(f"{s3}-not/run").write_bytes("a", b"1")
