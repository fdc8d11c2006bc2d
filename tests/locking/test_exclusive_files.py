"""Files that one of many creates and that do not come back, on file systems; `test_storage_s3` has those of S3."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from pyarrow import fs as pafs

from ray_kplm.errors import StorageError
from ray_kplm.locking.exclusive_files import exclusive_files
from ray_kplm.storage import Folder


def refuse(code: int):
    def link(*arguments):
        raise OSError(code, os.strerror(code))

    return link


@pytest.fixture(params=["links", "no links"])
def folder(request, tmp_path, monkeypatch) -> Folder:
    """A folder that does not exist yet, of file systems of both kinds."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    return Folder.at(tmp_path / "run")


def test_one_of_many_creates_a_file(folder):
    created, gate = [], threading.Barrier(8)

    def create(i: int) -> None:
        gate.wait()
        created.append((exclusive_files(folder).create("claim", b"%d" % i), i))

    threads = [threading.Thread(target=create, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, winner),) = [entry for entry in created if entry[0]]
    assert folder.read_bytes("claim") == b"%d" % winner
    assert folder.names() == ["claim"]  # nothing is left of the others


def test_a_file_is_rewritten_in_place_and_does_not_come_back(folder):
    files = exclusive_files(folder)
    assert files.create("claim", b"longer")
    assert files.rewrite("claim", b"short")
    assert folder.read_bytes("claim") == b"short"
    folder.delete_file("claim")
    assert not files.rewrite("claim", b"again")
    assert folder.names() == []


def test_a_file_that_is_removed_while_it_is_rewritten_counts_as_removed(tmp_path, monkeypatch):
    folder, write = Folder.at(tmp_path), os.write
    files = exclusive_files(folder)
    assert files.create("claim", b"1")

    def write_to_a_removed_file(handle: int, content: bytes) -> int:
        (tmp_path / "claim").unlink()
        return write(handle, content)

    monkeypatch.setattr(os, "write", write_to_a_removed_file)
    assert not files.rewrite("claim", b"2")


def test_a_file_on_nfs_that_another_client_removed_counts_as_removed(tmp_path, monkeypatch):
    files = exclusive_files(Folder.at(tmp_path))
    assert files.create("claim", b"1")
    monkeypatch.setattr(os, "write", refuse(errno.ESTALE))
    assert not files.rewrite("claim", b"2")


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", refuse(errno.ENOSPC))
    with pytest.raises(StorageError, match="no space is left"):
        exclusive_files(Folder.at(tmp_path)).create("claim", b"1")
    assert os.listdir(tmp_path) == []


def test_other_storage_is_not_exclusive_and_says_so():
    folder = Folder(pafs._MockFileSystem(), "run")
    files = exclusive_files(folder)
    assert not files.is_exclusive
