"""Listing and reading of a source's files."""

import errno
import os
import shutil
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs as pafs

from ray_kplm.datasets import source_files
from ray_kplm.datasets.duplicates import same_content
from ray_kplm.datasets.source_files import list_files, read_file, starts
from ray_kplm.errors import DataError, StorageError
from ray_kplm.storage import Folder


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def listed(folder, below="") -> tuple[list[str], dict[str, str]]:
    files, faults = list_files(Folder.at(folder), below)
    return [file.path for file in files], {fault.path: fault.reason for fault in faults}


@pytest.fixture
def open_to_all():
    """A folder that any user can read; the folders of tests cannot be entered by others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def another_user():
    """Run as a user without rights; the administrator may read everything."""
    administrator = os.geteuid() == 0
    if administrator:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if administrator:
            os.seteuid(0)
            os.setegid(0)


def test_files_are_listed_with_size_and_time_and_without_hidden_ones(tmp_path):
    put(tmp_path / "b/deep/x.jpg", b"123")
    put(tmp_path / "a.txt")
    put(tmp_path / "b/._x.jpg")
    put(tmp_path / ".hidden/x.jpg")
    put(tmp_path / "__MACOSX/x.jpg")
    files, faults = list_files(Folder.at(tmp_path))
    assert [file.path for file in files] == ["a.txt", "b/deep/x.jpg"]
    assert not faults
    at = (tmp_path / "b/deep/x.jpg").stat()
    assert files[1][1:] == (3, at.st_mtime_ns, (at.st_dev, at.st_ino))
    assert listed(tmp_path, "b") == (["b/deep/x.jpg"], {})


def test_a_folder_is_listed_once_however_many_links_lead_to_it(tmp_path):
    source = tmp_path / "above/source"
    put(source / "z/x.jpg")
    put(tmp_path / "above/outside.jpg")
    put(tmp_path / "elsewhere/y.jpg")
    for link, target in {
        "all": source,
        "up": tmp_path / "above",
        "a": source / "z",
        "b": source / "z",
        "more": tmp_path / "elsewhere",
        "z/back": source,
        "itself": "itself",
        "gone.jpg": "nothing",
    }.items():
        os.symlink(target, source / link)
    assert listed(source) == (
        ["more/y.jpg", "z/x.jpg"],
        {"gone.jpg": "unreadable: a link to nothing", "itself": "unreadable: a link to itself"},
    )
    files, _ = list_files(Folder.at(tmp_path / "above/source/a"))  # the folder itself may be a link
    assert [file.path for file in files] == ["x.jpg"]


def test_names_that_are_no_utf8_are_faults_wherever_they_stand(tmp_path):
    top = os.fsencode(tmp_path)
    os.makedirs(top + b"/B\xf6se/tief")
    for name in (b"/B\xf6se/tief/x.jpg", b"/Mu\xf1oz.jpg", b"/good.jpg", b"/two\nlines.jpg"):
        Path(os.fsdecode(top + name)).write_bytes(b"x")
    paths, faults = listed(tmp_path)
    assert paths == ["good.jpg", "two\nlines.jpg"]
    assert set(faults) == {"B\\xf6se/tief/x.jpg", "Mu\\xf1oz.jpg"}
    assert set(faults.values()) == {"name is not UTF-8: rename it"}
    "".join(faults).encode()


def test_what_is_no_file_is_a_fault_and_is_not_opened(tmp_path):
    put(tmp_path / "x.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        server.bind("socket.png")
        os.chdir(here)
    assert listed(tmp_path) == (
        ["x.jpg"],
        {"pipe.jpg": "not a file: a pipe", "socket.png": "not a file: a socket"},
    )


def test_a_folder_without_permission_is_a_fault_and_the_rest_is_listed(open_to_all):
    put(open_to_all / "shut/x.jpg")
    put(open_to_all / "x.jpg", b"secret").chmod(0)
    put(open_to_all / "y.jpg")
    (open_to_all / "shut").chmod(0)
    source = Folder.at(open_to_all)
    with another_user():
        assert listed(open_to_all) == (["x.jpg", "y.jpg"], {"shut": "unreadable: permission denied"})
        with pytest.raises(DataError, match=r"^unreadable: permission denied$"):
            read_file(source, "x.jpg")
        assert read_file(source, "y.jpg") == b"x"
        assert list(starts(source, ["x.jpg", "y.jpg"], 8)) == [b"", b"x"]
        with pytest.raises(DataError, match="cannot be listed: Permission denied"):
            list_files(source, "shut")
    (open_to_all / "shut").chmod(0o755)


def test_a_folder_that_vanishes_or_fails_is_a_fault(tmp_path, monkeypatch):
    for name in ("gone", "sick", "well"):
        put(tmp_path / name / "x.jpg")
    monkeypatch.setattr(source_files, "_PAUSES_S", (0.0, 0.0))
    scan, failures = os.scandir, []

    def failing(path):
        if path.endswith(b"gone"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if path.endswith(b"sick"):
            failures.append(path)
            raise OSError(errno.EIO, "Input/output error")
        return scan(path)

    monkeypatch.setattr(source_files.os, "scandir", failing)
    assert listed(tmp_path) == (
        ["well/x.jpg"],
        {
            "gone": "unreadable: deleted while the folder was listed",
            "sick": "unreadable: input/output error",
        },
    )
    assert len(failures) == 3  # it may have been the server


def test_a_folder_that_cannot_be_listed_at_all_is_one_error(tmp_path):
    put(tmp_path / "file")
    for name, reason in (("file", "Not a directory"), ("nowhere", "No such file")):
        with pytest.raises(DataError, match=f"{name}: cannot be listed: {reason}"):
            list_files(Folder.at(tmp_path), name)


def test_a_path_that_is_too_long_is_a_fault(tmp_path):
    put(tmp_path / "x.jpg")
    here = os.getcwd()
    os.chdir(tmp_path)
    for _ in range(20):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    os.chdir(here)
    paths, faults = listed(tmp_path)
    assert paths == ["x.jpg"]
    assert set(faults.values()) == {"unreadable: file name too long"}
    shutil.rmtree(tmp_path / ("d" * 250))


def test_errors_of_one_file_are_reasons_and_those_of_the_storage_are_not(tmp_path, monkeypatch):
    source = Folder.at(tmp_path)
    with pytest.raises(DataError, match=r"^unreadable: no such file, or deleted since"):
        read_file(source, "gone.jpg")
    with pytest.raises(DataError, match=r"^no landmarks"):
        read_file(source, "gone.jpg", missing="no landmarks")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match=r"^unreadable: "):
        read_file(source, "folder.jpg")

    def failing_with(cause):
        def read(self, name):
            raise StorageError("does not answer") from cause

        monkeypatch.setattr(Folder, "read_bytes", read)

    failing_with(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(DataError, match=r"^unreadable: input/output error"):
        read_file(source, "x.jpg")
    with pytest.raises(StorageError):
        read_file(Folder.at(tmp_path / "unmounted"), "x.jpg")
    failing_with(OSError(errno.ETIMEDOUT, "Connection timed out"))
    with pytest.raises(StorageError):
        read_file(source, "x.jpg")


def test_the_start_of_many_files_is_read_in_order(tmp_path):
    names = [f"{i:04d}" for i in range(1500)]
    for name in names:
        put(tmp_path / name, name.encode() * 3)
    assert list(starts(Folder.at(tmp_path), names, 4)) == [name.encode() for name in names]


def test_an_object_store_is_listed_and_compared_likewise():
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name, content in {"a.jpg": b"123", "b/c.jpg": b"123", "b/._c.jpg": b"1", "d": b"\xff\xd8\xff"}.items():
        store.pipe(f"/listing/{name}", content)
    source = Folder(pafs.PyFileSystem(pafs.FSSpecHandler(store)), "/listing")
    files, faults = list_files(source)
    assert [(file.path, file.size, file.inode) for file in files] == [
        ("a.jpg", 3, None),
        ("b/c.jpg", 3, None),
        ("d", 3, None),
    ]
    assert not faults
    assert same_content(source, files) == [["a.jpg", "b/c.jpg"]]
    assert list(starts(source, ["d", "nowhere"], 2)) == [b"\xff\xd8", b""]
    assert [file.path for file in list_files(source, "b").files] == ["b/c.jpg"]
    with pytest.raises(DataError, match="cannot be listed"):
        list_files(source, "nowhere")
