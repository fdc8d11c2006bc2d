"""A published file is what was written, or an error says that it is not."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.errors import DamageError
from ray_kplm.storage import Folder, integrity
from ray_kplm.storage.file_content import SEAL
from ray_kplm.storage.integrity import MANIFEST, CheckedFolder, read_manifest

WAY_OUT = "make it again"
TABLE = pa.table({"image_id": ["a", "b"], "image": [bytes(100), bytes(range(100))]})


@pytest.fixture(autouse=True)
def _new_process():
    forget()


def forget() -> None:
    """What this process has read and checked, as if it were another one."""
    integrity._published.clear()
    integrity._checked.clear()


def unit(path: Path) -> CheckedFolder:
    return CheckedFolder.of(Folder.at(path), WAY_OUT)


def publish(path: Path) -> CheckedFolder:
    folder = unit(path / "step")
    folder.write_bytes("network.pt", b"weights" * 100)
    folder.write_json("channels.json", {"a": [1, 2]})
    folder.write_table("part-00000.parquet", TABLE)
    (folder / "deep").write_table("part-00001.parquet", TABLE)
    folder.parent.write_bytes("clusters.npz", b"centroids")
    folder.publish({"step": "x"})
    forget()
    return folder


READS = {
    "network.pt": lambda folder: folder.read_bytes("network.pt"),
    "channels.json": lambda folder: folder.read_json("channels.json"),
    "part-00000.parquet": lambda folder: folder.read_table("part-00000.parquet", ["image_id"]),
    "deep/part-00001.parquet": lambda folder: (folder / "deep").read_tables(["part-00001.parquet"]),
    "../clusters.npz": lambda folder: folder.parent.read_bytes("clusters.npz"),
}


def change(path: Path, fault: str) -> None:
    content = bytearray(path.read_bytes())
    match fault:
        case "flip":
            content[len(content) // 2] ^= 4
        case "hole":
            content[4:8] = bytes(4)
        case "cut":
            del content[len(content) // 2 :]
        case "empty":
            content.clear()
        case "longer":
            content += b"\0"
    path.unlink()
    if fault != "delete":
        path.write_bytes(content)


def test_the_manifest_lists_all_files_and_the_records_are_gone(tmp_path):
    folder = publish(tmp_path)
    outputs = read_manifest(folder)["outputs"]
    assert sorted(outputs) == sorted(READS)
    assert outputs["network.pt"] == integrity.record_of("network.pt", b"weights" * 100)
    assert sorted(p.name for p in (tmp_path / "step").iterdir()) == [
        "channels.json", "deep", "manifest.json", "network.pt", "part-00000.parquet"
    ]  # fmt: skip
    for name, read in READS.items():
        read(folder), read(folder)
        assert integrity.difference(outputs[name], (tmp_path / "step" / name).read_bytes()) == ""


@pytest.mark.parametrize("fault", ["flip", "hole", "cut", "empty", "longer", "delete"])
@pytest.mark.parametrize("name", READS)
def test_a_changed_file_is_refused_in_one_line(tmp_path, name, fault):
    folder = publish(tmp_path)
    change(tmp_path / "step" / name, fault)
    for _ in range(2):
        with pytest.raises(DamageError) as caught:
            READS[name](folder)
        assert str(caught.value).startswith(str((tmp_path / "step" / name).resolve()))
        assert str(caught.value).endswith(f"; {WAY_OUT}")
        assert "\n" not in str(caught.value)
    for other in READS:
        if other != name:
            READS[other](folder)
    if fault in ("flip", "hole"):
        folder.check_sizes()
    else:
        with pytest.raises(DamageError):
            folder.check_sizes()
    with pytest.raises(DamageError):
        folder.check()
    assert not folder.is_sound()


def test_every_flipped_bit_of_a_file_is_noticed(tmp_path):
    folder, path = publish(tmp_path), tmp_path / "step/network.pt"
    content = path.read_bytes()
    for position in range(0, len(content), 13):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(DamageError):
            folder.read_bytes("network.pt")


@pytest.mark.parametrize("fault", ["flip", "hole", "cut", "empty"])
def test_a_damaged_manifest_is_one_line(tmp_path, fault):
    folder = publish(tmp_path)
    change(tmp_path / "step" / MANIFEST, fault)
    for read in (lambda: read_manifest(folder), lambda: folder.read_bytes("network.pt")):
        with pytest.raises(DamageError, match=f"manifest.json: .*; {WAY_OUT}$"):
            read()


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path):
    folder = publish(tmp_path)
    path = tmp_path / "step" / MANIFEST
    content, value = path.read_bytes(), read_manifest(folder).items()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            found = read_manifest(folder)  # white space, or the name of the hash itself
            assert {name for name, _ in value} - found.keys() <= {SEAL}
            assert all(found[name] == held for name, held in value if name in found)
        except DamageError:
            continue


def test_a_lost_part_is_not_overlooked(tmp_path):
    folder = publish(tmp_path)
    (tmp_path / "step/part-00000.parquet").unlink()
    (tmp_path / "step/part-00007.parquet").write_bytes(b"of something else")
    assert folder.parts() == ["part-00000.parquet"]
    assert (folder / "deep").parts() == ["part-00001.parquet"]
    assert folder.is_file("part-00000.parquet")  # it was; reading it says that it is lost
    assert not folder.is_file("background.npz")
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("background.npz")


def test_a_unit_of_an_older_version_is_read_unchecked(tmp_path):
    folder = unit(tmp_path)
    folder.unchecked.write_bytes("network.pt", b"old")
    folder.unchecked.write_json(MANIFEST, {"step": "x", "fingerprint": "f"})
    folder.unchecked.write_table("part-00000.parquet", TABLE)
    assert folder.read_bytes("network.pt") == b"old"
    assert folder.parts() == ["part-00000.parquet"]
    assert folder.read_table("part-00000.parquet").equals(TABLE)
    folder.check(), folder.check_sizes()
    assert read_manifest(folder)["fingerprint"] == "f"


def test_a_part_is_hashed_once_in_a_process(tmp_path, monkeypatch):
    folder, hashed = publish(tmp_path), []
    compare = integrity.difference
    monkeypatch.setattr(integrity, "difference", lambda *of: hashed.append(of) or compare(*of))
    for columns in (None, ["image_id"], None):
        folder.read_table("part-00000.parquet", columns)
    assert len(hashed) == 1
    folder.read_bytes("network.pt"), folder.read_bytes("network.pt")
    assert len(hashed) == 3


def test_few_columns_of_a_large_part_are_read_without_the_rest(tmp_path, monkeypatch):
    images = [np.random.default_rng(i).bytes(3000) for i in range(800)]
    folder = unit(tmp_path)
    folder.write_table("part-00000.parquet", pa.table({"image_id": [f"{i:09d}" for i in range(800)], "image": images}))
    folder.publish({})
    monkeypatch.setattr(integrity, "difference", lambda *of: pytest.fail("the whole file was read"))
    assert len(folder.read_table("part-00000.parquet", ["image_id"])) == 800
    monkeypatch.undo()
    path = tmp_path / "part-00000.parquet"
    content = path.read_bytes()

    def flipped(position: int, columns: list[str]):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        forget()
        return folder.read_table("part-00000.parquet", columns)

    group = pa.parquet.ParquetFile(pa.BufferReader(content)).metadata.row_group(0)
    start, size = group.column(0).dictionary_page_offset, group.column(0).total_compressed_size
    for position in range(start, start + size, 97):
        with pytest.raises(DamageError):
            flipped(position, ["image_id"])
    for position in range(len(content) - 300, len(content), 17):  # the footer
        with pytest.raises(DamageError):
            flipped(position, ["image_id"])
    assert flipped(len(content) // 2, ["image_id"])["image_id"][0].as_py() == "000000000"  # another column is damaged
    with pytest.raises(DamageError):
        flipped(len(content) // 2, ["image"])


def test_a_unit_that_is_made_again_is_read_anew(tmp_path):
    folder = publish(tmp_path)
    folder.read_bytes("network.pt"), folder.read_table("part-00000.parquet")
    known = dict(integrity._published)
    folder.unchecked.delete()
    again = unit(tmp_path / "step")
    again.write_bytes("network.pt", b"others")
    again.write_table("part-00000.parquet", TABLE.slice(0, 1))
    again.publish({})
    integrity._published.update(known)  # a worker that does not know of it
    assert folder.read_bytes("network.pt") == b"others"
    assert len(folder.read_table("part-00000.parquet")) == 1


def test_what_an_interrupted_step_wrote_is_known_when_it_continues(tmp_path):
    unit(tmp_path).write_table("part-00000.parquet", TABLE)
    unit(tmp_path).write_table("part-00001.parquet", TABLE)
    change(tmp_path / "part-00001.parquet", "flip")
    worker = pickle.loads(pickle.dumps(unit(tmp_path)))
    assert worker.is_whole("part-00000.parquet")
    assert not worker.is_whole("part-00001.parquet")
    assert not worker.is_whole("part-00002.parquet")
    worker.write_table("part-00001.parquet", TABLE)
    assert worker.is_whole("part-00001.parquet")
    outputs = unit(tmp_path).publish({})["outputs"]
    assert sorted(outputs) == ["part-00000.parquet", "part-00001.parquet"]


def test_a_crash_between_a_file_and_its_record_costs_one_read(tmp_path):
    unit(tmp_path).write_table("part-00000.parquet", TABLE)
    unit(tmp_path).write_bytes("a.npz", b"arrays")
    shutil.rmtree(tmp_path / ".written")
    (tmp_path / ".written").mkdir()
    (tmp_path / ".written/a.npz").write_bytes(b'{"sha2')  # cut by a loss of power
    assert unit(tmp_path).is_whole("part-00000.parquet")
    outputs = unit(tmp_path).publish({})["outputs"]
    assert outputs["a.npz"] == integrity.record_of("a.npz", b"arrays")
    change(tmp_path / "part-00000.parquet", "flip")
    with pytest.raises(DamageError):
        unit(tmp_path).read_table("part-00000.parquet")


def test_a_part_without_a_record_is_whole_only_if_its_pages_are(tmp_path):
    unit(tmp_path).unchecked.write_table("part-00000.parquet", pa.table({"x": np.random.default_rng(0).random(500)}))
    change(tmp_path / "part-00000.parquet", "flip")
    assert not unit(tmp_path).is_whole("part-00000.parquet")


def test_a_file_that_changes_before_the_end_is_not_published(tmp_path):
    folder = unit(tmp_path)
    folder.write_bytes("network.pt", b"weights")
    change(tmp_path / "network.pt", "cut")
    with pytest.raises(DamageError, match="bytes instead of 7"):
        folder.publish({})
    assert not (tmp_path / MANIFEST).exists()


def test_unpublishing_keeps_what_is_whole(tmp_path):
    folder = publish(tmp_path)
    change(tmp_path / "step/network.pt", "flip")
    change(tmp_path / "clusters.npz", "flip")
    folder.unpublish(["network.pt", "../clusters.npz"])
    assert not (tmp_path / "clusters.npz").exists()
    assert not (tmp_path / "step" / MANIFEST).exists()
    assert folder.is_whole("part-00000.parquet")
    assert not folder.is_whole("network.pt")
    change(tmp_path / "step/part-00000.parquet", "flip")
    assert not folder.is_whole("part-00000.parquet")  # its record is kept


def test_hidden_files_and_those_of_sub_steps_are_no_outputs(tmp_path):
    folder = unit(tmp_path)
    (folder / ".rejected").write_bytes("part-00000.parquet", b"x")
    below = unit(tmp_path / "000")
    below.write_bytes("network.pt", b"x")
    below.publish({})
    folder.write_bytes("network.pt", b"y")
    assert sorted(folder.publish({})["outputs"]) == ["network.pt"]


def test_on_an_object_store(s3, tmp_path):
    folder = CheckedFolder.of(Folder.at(f"{s3}/run/rounds/000/labels"), WAY_OUT)
    folder.write_table("part-00000.parquet", TABLE)
    folder.parent.write_bytes("clusters.npz", b"centroids")
    outputs = folder.publish({"step": "x"})["outputs"]
    assert sorted(outputs) == ["../clusters.npz", "part-00000.parquet"]
    folder.check(), folder.check_sizes()
    assert folder.parent.read_bytes("clusters.npz") == b"centroids"
    Folder.at(f"{s3}/run/rounds/000").write_bytes("clusters.npz", b"centroidz")
    with pytest.raises(DamageError, match="SHA-256"):
        folder.parent.read_bytes("clusters.npz")
    folder.unpublish(["../clusters.npz"])
    assert folder.parent.unchecked.names() == []
    assert folder.is_whole("part-00000.parquet")


def test_values_that_json_changes_are_sealed_as_they_are_stored(tmp_path):
    folder = unit(tmp_path)
    returned = folder.publish({"pairs": ((1, 2),), "by": {10: 1, 9: 2, "a": 3}, "nan": float("nan")})
    stored = read_manifest(folder)
    assert json.dumps(stored, sort_keys=True) == json.dumps(returned, sort_keys=True)
