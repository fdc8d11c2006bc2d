"""Object stores that accept a connection and do not answer: every request ends within one limit, and so does the process."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from ray_kplm.errors import StorageError
from ray_kplm.storage import Folder, copy_file, time_limit
from ray_kplm.storage import folder as storage
from ray_kplm.storage.time_limit import TimeLimit, TimeLimitError, allow, check_wanted

ROOT = Path(__file__).parents[2]
HEADER = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "a"\r\nLast-Modified: Mon, 30 Nov 2026 00:00:00 GMT\r\n'
    b"Content-Type: application/xml\r\n\r\n"
)
STORES = ["silent", "stalls", "trickles", "resets", "cuts"]
REQUESTS = {
    "exists": lambda folder: folder.exists("a"),
    "size": lambda folder: folder.size("a"),
    "names": lambda folder: folder.names(),
    "walk": lambda folder: folder.walk(),
    "read_bytes": lambda folder: folder.read_bytes("a"),
    "read_json": lambda folder: folder.read_json("a"),
    "read_table": lambda folder: folder.read_table("a"),
    "read_tables": lambda folder: folder.read_tables(["a", "b"]),
    "rows": lambda folder: folder.rows("a"),
    "write_bytes": lambda folder: folder.write_bytes("a", b"1"),
    "write_table": lambda folder: folder.write_table("a", pa.table({"a": [1]})),
    "delete": lambda folder: folder.delete(),
    "delete_file": lambda folder: folder.delete_file("a"),
    "writing": lambda folder: write_pieces(folder),
    "copy_file": lambda folder: copy_file(folder, folder / "copy", "a"),
}


def write_pieces(folder: Folder) -> None:
    with folder.writing("a") as stream:
        stream.write(b"1")


def answer(store: str, connection: socket.socket) -> None:
    """Answer one connection as the store does."""
    try:
        while request := connection.recv(65536):
            if store == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return connection.close()
            if store != "silent":
                connection.sendall(HEADER)
            if store == "cuts" and not request.startswith(b"HEAD"):
                connection.sendall(b"<half")
                return connection.close()
            while store == "trickles" and not request.startswith(b"HEAD"):
                connection.sendall(b"<<<")
                time.sleep(0.1)
    except OSError:
        return None


@pytest.fixture
def serve(monkeypatch):
    """Start a store, and return the folder in it; the time limit is short."""
    monkeypatch.setattr(storage, "LIMIT_S", 1.5)
    monkeypatch.setattr(storage, "_NOTICE_S", 0.5)
    monkeypatch.setattr(storage, "_PAUSES_S", (0.1, 0.2))
    monkeypatch.setattr(storage, "_last_said", [])
    monkeypatch.setattr(time_limit, "_SLICE_S", 0.1)
    monkeypatch.setattr(time_limit, "SLOWEST_BYTES_S", 10**7)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sockets: list[socket.socket] = []

    def start(store: str) -> Folder:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        sockets.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                sockets.append(connection)
                threading.Thread(target=answer, args=(store, connection), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        return Folder.at(f"s3://bucket/run?endpoint_override={host}&scheme=http&region=us-east-1")

    yield start
    for opened in sockets:  # while a request is under way, pyarrow opens no other store (pyarrow 25)
        with suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)
        opened.close()
    for left in time_limit._left_behind:
        left.ready.wait(60)
    time_limit._left_behind.clear()


def outcome(request, folder: Folder) -> BaseException | None:
    try:
        request(folder)
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("store", STORES)
def test_every_request_ends_in_one_line(serve, store):
    """A store that answers the headers has the file, so that `exists` and `size` are answered."""
    folder = serve(store)
    with ThreadPoolExecutor(len(REQUESTS)) as threads:
        ended = dict(zip(REQUESTS, threads.map(lambda r: outcome(r, folder), REQUESTS.values()), strict=True))
    answered = {"exists", "size"} if store in ("stalls", "trickles", "cuts") else set()
    for name, error in ended.items():
        if name in answered:
            assert error is None, (name, error)
        else:
            assert isinstance(error, StorageError), (name, error)
            assert "does not answer" in str(error)
            assert "\n" not in str(error)


def test_a_line_is_printed_meanwhile(serve, capsys):
    folder = serve("silent")
    for _ in range(2):
        with pytest.raises(StorageError):
            folder.read_bytes("a")
    assert capsys.readouterr().err == f"kplm: {folder} does not answer: waiting for up to 2 s\n"


def test_a_bucket_whose_region_is_not_told_is_an_error_of_one_line(serve, monkeypatch):
    """The region is asked for before there is a folder."""

    answers = threading.Event()
    serve("silent")
    monkeypatch.setattr(
        storage,
        "pafs",
        type("Stub", (), {"FileSystem": type("F", (), {"from_uri": staticmethod(lambda uri: answers.wait())})}),
    )
    with pytest.raises(StorageError, match="s3://bucket/run: does not answer within 2 s"):
        Folder.at("s3://bucket/run")
    answers.set()


def limit(seconds: float, said: list[str] | None = None) -> TimeLimit:
    return TimeLimit(seconds, seconds / 2, lambda: None if said is None else said.append("notice"))


@pytest.fixture
def quick_slices(monkeypatch):
    monkeypatch.setattr(time_limit, "_SLICE_S", 0.02)
    yield
    time_limit._left_behind.clear()


def test_values_and_errors_come_back_from_the_thread():
    assert limit(9).call(lambda: threading.current_thread().name) == "storage"
    with pytest.raises(KeyError, match="a"):
        limit(9).call(lambda: {}["a"])
    with pytest.raises(SystemExit):
        limit(9).call(lambda: sys.exit(3))


def test_attempts_and_pauses_share_one_limit(quick_slices):
    shared, said = limit(0.3, said := []), said
    shared.call(lambda: None)
    shared.sleep(0.2)
    assert said == ["notice"]
    assert 0 < shared.left_s <= 0.1 + 1e-9
    with pytest.raises(TimeLimitError):
        shared.call(threading.Event().wait)
    assert said == ["notice"]


def test_a_request_that_was_left_behind_publishes_nothing(quick_slices):
    go_on, published, ended = threading.Event(), [], threading.Event()

    def request() -> None:
        go_on.wait()
        try:
            check_wanted()
            published.append(1)
        finally:
            ended.set()

    with pytest.raises(TimeLimitError):
        limit(0.1).call(request)
    go_on.set()
    assert ended.wait(60)
    assert published == []


def test_content_extends_the_limit(quick_slices, monkeypatch):
    monkeypatch.setattr(time_limit, "SLOWEST_BYTES_S", 100)

    def request() -> str:
        allow(10**6)
        time.sleep(0.4)
        return "done"

    assert limit(0.1).call(request) == "done"
    allow(1)  # outside of a request it has no effect


def test_time_in_which_the_process_was_suspended_does_not_count(tmp_path):
    code = (
        "import time; from ray_kplm.storage.time_limit import TimeLimit\n"
        "print('go', flush=True)\n"
        "print(TimeLimit(3.0, 2.0, lambda: None).call(lambda: time.sleep(1.5) or 'done'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "go\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "done\n"


def test_a_file_system_that_blocks_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(storage, "_MOUNTED_NOTICE_S", 0.05)
    monkeypatch.setattr(time_limit, "_WATCH_S", 0.01)
    monkeypatch.setattr(time_limit, "_watch", time_limit._Watch())
    monkeypatch.setattr(storage, "_last_said", [])
    said = threading.Event()
    say = storage._say
    monkeypatch.setattr(storage, "_say", lambda text: (say(text), said.set()))
    folder = Folder.at(tmp_path)
    assert folder._retry(lambda: said.wait(60))
    assert capsys.readouterr().err == f"kplm: {tmp_path} does not answer: waiting until its file system does\n"
    assert folder._retry(lambda: 5) == 5


def test_a_process_ends_although_a_request_does_not(serve):
    """The body would take many hours at this rate."""
    folder = serve("trickles")
    host = folder.filesystem.__reduce__()[1][0]["endpoint_override"]
    code = (
        "from ray_kplm.storage import folder as storage; storage.LIMIT_S = 1.0\n"
        f"folder = storage.Folder.at('s3://bucket/run?endpoint_override={host}&scheme=http&region=us-east-1')\n"
        "try: folder.read_bytes('a')\nexcept storage.StorageError as error: print(error, flush=True)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert "does not answer within" in ended.stdout
    assert ended.returncode == StorageError.exit_code, ended.stderr


def test_a_forked_process_makes_its_own_threads(tmp_path):
    limit(9).call(lambda: None)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, limit(9).call(lambda: b"from the child"))
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"from the child"
