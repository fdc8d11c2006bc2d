"""The same guarantees on an object store, with a real S3 server: complete files, listings, deletion, the lock."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from ray_kplm.config import load_config
from ray_kplm.errors import RunError, StorageError
from ray_kplm.locking import FolderLock, lock_folder
from ray_kplm.locking import lock as run_lock
from ray_kplm.locking.claims import read_claims
from ray_kplm.locking.exclusive_files import exclusive_files
from ray_kplm.locking.takeover import acquire
from ray_kplm.run import Run
from ray_kplm.storage import Folder, copy_file
from ray_kplm.storage import folder as storage


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


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


@pytest.fixture(params=["conditional requests", "no botocore"])
def claims_by(request, s3, monkeypatch) -> str:
    """How drivers claim a folder: by conditional requests, or by a listing as without botocore."""
    if request.param == "no botocore":
        monkeypatch.setitem(sys.modules, "botocore.session", None)
    return request.param


def test_a_second_driver_is_refused(s3, claims_by):
    folder = Folder.at(f"{s3}/run")
    with lock_folder(folder, beat_s=0.05) as lock:
        with pytest.raises(RunError, match="in use by host"), lock_folder(folder):
            pass
        Run.start(load_config(None, [f"run={s3}/run"]))  # a claim does not make the folder anything else
        wait_for(lambda: read_claims(folder)[0].values["beat"] > 2)
        lock.check()
    with lock_folder(folder):
        pass
    assert folder.names() == []


def test_a_driver_that_was_replaced_changes_nothing(s3, claims_by):
    folder = Folder.at(f"{s3}/run")
    files = exclusive_files(folder)
    first = FolderLock(folder, *acquire(folder, files, 1, print), files, 3600, 3600)
    (claim,) = read_claims(folder)
    folder.write_json(claim.name, {**claim.values, "machine": "another"})
    with lock_folder(folder, patience_s=0.2, log=lambda line: None) as second:
        second.folder.write_bytes("old", b"1")
        for change in (
            lambda: first.folder.write_bytes("old", b"2"),
            lambda: first.folder.delete_file("old"),
            first.folder.delete,
        ):
            with pytest.raises(RunError, match="taken over by"):
                change()
        assert folder.read_bytes("old") == b"1"
        assert "taken over by" in first._beat()
        assert [claim.token for claim in read_claims(folder)] == [second.folder.guard.token]
        first.release()
        second.check()
    assert folder.names() == ["old"]


def test_a_claim_is_created_by_one_of_many_and_rewritten_only_while_it_exists(s3):
    folder = Folder.at(f"{s3}/run")
    files = [exclusive_files(folder) for _ in range(8)]
    assert all(each.is_exclusive for each in files)
    created = []
    threads = [
        threading.Thread(target=lambda i=i: created.append((files[i].create("claim", b"%d" % i), i))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, winner),) = [entry for entry in created if entry[0]]
    assert folder.read_bytes("claim") == b"%d" % winner
    assert files[winner].rewrite("claim", b"again")
    assert folder.read_bytes("claim") == b"again"
    folder.write_bytes("claim", b"somebody else's")
    assert not files[winner].rewrite("claim", b"mine")
    folder.delete_file("claim")
    assert not files[winner].rewrite("claim", b"mine")
    assert folder.names() == []


def test_a_claim_whose_answer_was_lost_is_found_to_be_there(s3, monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda s: None)
    folder = Folder.at(f"{s3}/run")
    files = exclusive_files(folder)
    put, lost = files._client.put_object, []

    def lose_the_first_answer(**request):
        answer = put(**request)
        if not lost:
            lost.append(answer)
            raise ConnectionClosedError(endpoint_url="s3")
        return answer

    monkeypatch.setattr(files._client, "put_object", lose_the_first_answer)
    assert files.create("claim", b"1")
    lost.clear()
    assert files.rewrite("claim", b"2")
    assert folder.read_bytes("claim") == b"2"


def test_a_server_without_conditional_requests_is_claimed_by_a_listing(s3, monkeypatch):
    folder = Folder.at(f"{s3}/run")

    def exclusive_files_of_an_old_server(folder):
        files = exclusive_files(folder)
        put = files._client.put_object

        def refuse_conditions(**request):
            if {"IfMatch", "IfNoneMatch"} & set(request):
                status = {"ResponseMetadata": {"HTTPStatusCode": 501}, "Error": {"Code": "NotImplemented"}}
                raise ClientError(status, "PutObject")
            return put(**request)

        files._client.put_object = refuse_conditions
        return files

    monkeypatch.setattr(run_lock, "exclusive_files", exclusive_files_of_an_old_server)
    with lock_folder(folder, beat_s=0.05) as lock:
        (name,) = folder.names()
        assert lock.folder.guard.token in name
        with pytest.raises(RunError, match="in use by host"), lock_folder(folder):
            pass
    assert folder.names() == []


def test_a_missing_bucket_is_an_error_of_the_lock_too(s3, claims_by):
    with pytest.raises(StorageError, match="NO_SUCH_BUCKET"), lock_folder(Folder.at(f"{s3}-not/run")):
        pass


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
