"""Storage: files are complete or absent, under any path."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs

from ray_kplm import schemas
from ray_kplm.errors import DamageError, DataError, StorageError
from ray_kplm.storage import Folder


def tree(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


def interrupt(folder: Folder, name: str, error: BaseException) -> None:
    with folder.writing(name) as stream:
        stream.write(b"half of the n")
        stream.flush()
        raise error


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_nothing(tmp_path, error):
    folder = Folder.at(tmp_path)
    with pytest.raises(type(error)):
        interrupt(folder, "table.bin", error)
    assert tree(tmp_path) == []


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    folder = Folder.at(tmp_path)
    folder.write_bytes("table.bin", b"old")
    with pytest.raises(RuntimeError):
        interrupt(folder, "table.bin", RuntimeError())
    assert folder.read_bytes("table.bin") == b"old"
    assert tree(tmp_path) == ["table.bin"]


def test_nothing_appears_under_the_name_before_the_end(tmp_path):
    folder = Folder.at(tmp_path)
    with folder.writing("deep/er/a.bin") as stream:
        stream.write(b"content")
        stream.flush()
        assert not folder.exists("deep/er/a.bin")
    assert tree(tmp_path) == ["deep", "deep/er", "deep/er/a.bin"]
    assert folder.read_bytes("deep/er/a.bin") == b"content"
    folder.write_bytes("deep/er/a.bin", b"new")
    assert folder.read_bytes("deep/er/a.bin") == b"new"


def test_parts_are_sorted_and_nothing_else(tmp_path):
    folder = Folder.at(tmp_path)
    for name in ("part-00010.parquet", "part-00002.parquet", "manifest.json", "other.parquet", "part-00000.txt"):
        folder.write_bytes(name, b"")
    (tmp_path / "part-00001.parquet").mkdir()
    assert folder.parts() == ["part-00002.parquet", "part-00010.parquet"]
    assert folder.names(suffix=".json") == ["manifest.json"]
    assert folder.folders() == ["part-00001.parquet"]


def test_a_folder_need_not_exist(tmp_path):
    folder = Folder.at(tmp_path) / "nowhere"
    assert not folder.exists()
    assert folder.names() == folder.folders() == folder.parts() == []
    folder.delete()
    folder.delete_file("a")
    assert tree(tmp_path) == []


def test_tables_and_json_come_back(tmp_path):
    folder = Folder.at(tmp_path) / "sub"
    table = pa.table({"a": [1, 2, 3], "xy": [[[1.5, 2.5]], [], [[3.0, 4.0], [5.0, 6.0]]]})
    folder.write_table("part-00000.parquet", table)
    assert folder.read_table("part-00000.parquet").equals(table)
    assert folder.read_table("part-00000.parquet", columns=["a"]).column_names == ["a"]
    assert folder.rows("part-00000.parquet") == 3
    folder.write_json("facts.json", {"b": [1, None], "a": 0.1})
    assert folder.read_json("facts.json") == {"b": [1, None], "a": 0.1}
    assert folder.is_file("facts.json")
    assert folder.size("facts.json") == (tmp_path / "sub/facts.json").stat().st_size
    assert not Folder.at(tmp_path).is_file("sub")


def test_tables_are_read_concurrently_and_in_order(tmp_path, monkeypatch):
    folder, together = Folder.at(tmp_path), threading.Barrier(4, timeout=60)
    names = [f"part-{i:05d}.parquet" for i in (3, 1, 2, 0)]
    for number, name in enumerate(names):
        folder.write_table(name, pa.table({"n": [number], "m": ["x"]}))
    read = pq.read_table

    def wait_for_all(*arguments, **options):
        together.wait()  # broken where one is read after the other
        return read(*arguments, **options)

    monkeypatch.setattr(pq, "read_table", wait_for_all)
    tables = folder.read_tables(names, ["n"])
    assert [table.to_pydict() for table in tables] == [{"n": [number]} for number in range(4)]
    assert folder.read_tables([]) == []


@pytest.mark.parametrize(
    "schema",
    [schemas.features_schema(3), schemas.IMAGES, schemas.LANDMARKS, schemas.LABELS],
    ids=["features", "images", "landmarks", "labels"],
)
def test_only_columns_with_repeated_values_are_dictionary_encoded(tmp_path, schema):
    """Descriptors, points and encoded images never come twice."""
    values = {
        "image_id": "a", "image": b"jpeg", "width": 2, "height": 2, "box": [1.0], "crop_to_source": [1.0] * 6,
        "sequence": "v", "frame": 3, "source_width": 2, "source_height": 2,
        "landmarks": [[1.0, 2.0]], "visible": [True], "group": "g",
        "attributes": [("yaw", 1.0)], "xy": [[1.0, 2.0]], "score": [0.5], "landmark": [1], "cluster": [1],
        "cluster_flipped": [1], "usable": [True],
    }  # fmt: skip
    row = {name: values.get(name, np.ones(3, np.float16)) for name in schema.names}
    Folder.at(tmp_path).write_table("t.parquet", pa.Table.from_pylist([row] * 4, schema=schema))
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    dictionaries = {column.path_in_schema for column in columns if column.has_dictionary_page}
    leaves = {"landmark", "cluster", "cluster_flipped"} & set(schema.names)
    strings = {"image_id", "sequence", "group"} & set(schema.names)
    numbers = {"width", "height", "frame", "source_width", "source_height"} & set(schema.names)
    expected = {f"{name}.list.element" for name in leaves} | strings | numbers
    assert dictionaries == expected | {"attributes.key_value.key"} & {c.path_in_schema for c in columns}


def test_the_same_json_has_the_same_bytes(tmp_path):
    folder = Folder.at(tmp_path)
    folder.write_json("a.json", {"x": 1, "y": 2})
    folder.write_json("b.json", {"y": 2, "x": 1})
    assert folder.read_bytes("a.json") == folder.read_bytes("b.json")


def test_bytes_come_back_whatever_the_name(tmp_path):
    folder = Folder.at(tmp_path)
    for name in ("a.gz", "b.zst", "c.bz2"):
        folder.write_bytes(name, b"plain")
        assert folder.read_bytes(name) == b"plain"


def test_delete_takes_this_folder_only(tmp_path):
    folder = Folder.at(tmp_path)
    for name in ("a/x", "a/deep/y", "b/z"):
        folder.write_bytes(name, b"1")
    (folder / "a").delete()
    assert tree(tmp_path) == ["b", "b/z"]
    (folder / "b").delete_file("z")
    assert tree(tmp_path) == ["b"]


def test_a_folder_can_be_pickled(tmp_path):
    folder = pickle.loads(pickle.dumps(Folder.at(tmp_path) / "a"))
    folder.write_bytes("x", b"1")
    assert tree(tmp_path) == ["a", "a/x"]


def test_relative_home_and_uri_paths_are_one_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Folder.at("runs/a").write_bytes("x", b"1")
    expected = os.path.realpath(tmp_path / "runs/a")
    for place in ("runs/../runs/a/", "~/runs/a", Path("runs/a"), f"file://{tmp_path}/runs/a/", tmp_path / "runs" / "a"):
        folder = Folder.at(place)
        assert folder.is_local
        assert os.path.realpath(str(folder)) == expected
        assert folder.name == "a"
        assert folder.read_bytes("x") == b"1"
    monkeypatch.chdir("/")
    assert folder.read_bytes("x") == b"1"


@pytest.mark.parametrize("uri", ["s4://bucket/key", "s3://bucket/key?endpoint=here", "file:relative://x"])
def test_an_unknown_uri_is_an_error_of_one_line(uri):
    with pytest.raises(DataError, match="no storage of this kind") as caught:
        Folder.at(uri)
    assert "\n" not in str(caught.value)


class Flaky(pafs.FSSpecHandler):
    """A local folder whose server fails so many times, with this error."""

    def __init__(self, times: int, number: int) -> None:
        super().__init__(fsspec.filesystem("file"))
        self.left, self.number = times, number

    def _fail(self) -> None:
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))

    def open_input_file(self, path):
        self._fail()
        return super().open_input_file(path)

    def open_output_stream(self, path, metadata):
        self._fail()
        return super().open_output_stream(path, metadata)

    def get_file_info(self, paths):
        self._fail()
        return super().get_file_info(paths)


def flaky(path, times, number=errno.EIO) -> Folder:
    return Folder(pafs.PyFileSystem(Flaky(times, number)), str(path))


def test_requests_are_repeated_after_transient_errors(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    table = pa.table({"a": [1, 2]})
    flaky(tmp_path, 3).write_table("part-00000.parquet", table)
    assert flaky(tmp_path, 3).read_table("part-00000.parquet").equals(table)
    assert flaky(tmp_path, 3).rows("part-00000.parquet") == 2
    assert flaky(tmp_path, 3).is_file("part-00000.parquet")
    flaky(tmp_path, 2).write_json("a.json", [1])
    assert flaky(tmp_path, 2).read_json("a.json") == [1]
    assert pauses == [0.5, 1, 2] * 4 + [0.5, 1] * 2
    with pytest.raises(StorageError, match=r"does not answer .*the same command continues"):
        flaky(tmp_path, 99).read_bytes("a.json")
    assert sum(pauses[-6:]) == 31.5


def test_permanent_errors_are_raised_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda s: pytest.fail("it waits"))
    with pytest.raises(FileNotFoundError):
        Folder.at(tmp_path).read_bytes("nothing")
    with pytest.raises(FileNotFoundError):
        flaky(tmp_path, 0).read_bytes("nothing")
    with pytest.raises(StorageError, match="no space is left; free some, and the same command continues"):
        flaky(tmp_path, 1, errno.ENOSPC).write_bytes("a", b"1")
    with pytest.raises(StorageError, match="Permission denied; check"):
        flaky(tmp_path, 1, errno.EACCES).write_bytes("a", b"1")


def test_a_full_disk_publishes_nothing_and_says_so():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space left") as caught, pa.OSFile(str(full), "wb") as stream:
        stream.write(b"0" * 2**20)
    assert caught.value.errno == errno.ENOSPC  # as pyarrow tells it, and Folder knows it


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for look in (Folder.names, Folder.folders, Folder.walk):
        with pytest.raises(StorageError, match="is a file; name a folder"):
            look(Folder.at(tmp_path / "file"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table at all", bytes(500)])
def test_what_is_no_table_is_one_line(tmp_path, content):
    folder = Folder.at(tmp_path)
    folder.write_bytes("a.parquet", content)
    for read in (folder.read_table, folder.rows):
        with pytest.raises(DamageError, match=r"a\.parquet: is damaged or of another kind") as caught:
            read("a.parquet")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        folder.read_table("b.parquet")


@pytest.mark.parametrize("content", [b"", b"{", bytes(30), b"\xff\xfe", b"NaN]"])
def test_what_is_no_json_is_one_line(tmp_path, content):
    folder = Folder.at(tmp_path)
    folder.write_bytes("a.json", content)
    for read in (folder.read_json, folder.read_object):
        with pytest.raises(DamageError, match=r"a\.json: is damaged or of another kind"):
            read("a.json")
    folder.write_json("a.json", [1])
    with pytest.raises(DamageError, match="is no JSON object but list"):
        folder.read_object("a.json")
