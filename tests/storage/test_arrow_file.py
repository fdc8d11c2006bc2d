"""Arrow files: columns are read alone, and what is not as it was written is noticed."""

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.bench.counted_storage import CountedStorage
from ray_kplm.errors import DamageError
from ray_kplm.storage import Folder, integrity
from ray_kplm.storage.arrow_file import arrow_footer, decode_arrow, encode_arrow
from ray_kplm.storage.integrity import CheckedFolder

NAME = "part-00000.arrow"


def lists(values: np.ndarray, counts: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)), pa.array(values)
    )


def table(rows: int, width: int = 8) -> pa.Table:
    rng = np.random.default_rng(rows)
    counts = rng.integers(0, 9, rows)
    total = int(counts.sum())
    return pa.table(
        {
            "used": lists(rng.random(total) > 0.2, counts),
            "name": pa.array([f"é{i}" for i in range(rows)], pa.string()),
            "size": pa.array(rng.integers(0, 9, rows).astype(np.int32)),
            "wide": lists(rng.random(total * width).astype(np.float16), counts * width),
            "other": lists(rng.random(total * width).astype(np.float16), counts * width),
        }
    ).replace_schema_metadata({"width": str(width)})


@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_a_table_comes_back_with_its_metadata_whole_and_by_column(rows):
    given = table(rows)
    encoded = encode_arrow(given)
    assert decode_arrow(encoded).equals(given)
    assert decode_arrow(encoded).schema.metadata[b"width"] == b"8"
    assert decode_arrow(encoded, ["wide", "used"]).equals(given.select(["used", "wide"]))
    assert decode_arrow(encode_arrow(given.slice(rows // 3))).equals(given.slice(rows // 3))


def test_a_column_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="it has no column height"):
        decode_arrow(encode_arrow(table(3)), ["used", "height"])


@pytest.mark.parametrize("columns", [None, ["used"], ["wide"]])
def test_a_flipped_byte_is_noticed_or_is_of_no_column_that_is_read(columns):
    given = table(20)
    content = encode_arrow(given).to_pybytes()
    expected = given if columns is None else given.select(columns)
    noticed = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x40
        try:
            found = decode_arrow(pa.py_buffer(bytes(damaged)), columns)
        except (ValueError, KeyError, OSError, pa.ArrowException):
            noticed += 1
        else:
            assert found.select(expected.column_names).equals(expected), place
    assert noticed > sum(expected[name].nbytes for name in expected.column_names)


# -- on storage


@pytest.fixture(params=["plain", "checked"])
def folder(request, tmp_path):
    integrity._published.clear()
    plain = Folder.at(tmp_path / "step")
    return plain if request.param == "plain" else CheckedFolder.of(plain, "make it again")


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("fault", ["flip", "cut", "empty", "footer", "other"])
def test_damage_is_an_error_that_names_the_file(folder, fault, published):
    given = table(200)
    folder.write_arrow(NAME, given)
    if published and isinstance(folder, CheckedFolder):
        folder.publish({})
    assert folder.is_whole(NAME)
    content = bytearray(folder.read_bytes(NAME))
    middle = content.index(given["other"].combine_chunks().buffers()[-1].to_pybytes()[:16])
    match fault:
        case "flip":
            content[middle] ^= 1
        case "cut":
            content = content[: len(content) // 2]
        case "empty":
            content = bytearray()
        case "footer":
            content[-40] ^= 1
        case "other":
            content = bytearray(encode_arrow(table(201)))
    Folder.at(folder.path).write_bytes(NAME, bytes(content))
    if fault == "other" and not isinstance(folder, CheckedFolder):
        assert len(folder.read_arrow(NAME)) == 201  # a plain folder has no records
        return
    with pytest.raises(DamageError, match=f"{NAME}: is damaged"):
        folder.read_arrow(NAME)
    if isinstance(folder, CheckedFolder):
        assert not folder.is_whole(NAME)
    if fault == "flip":
        assert folder.read_arrow(NAME, ["used", "wide"]).equals(given.select(["used", "wide"]))
        with pytest.raises(DamageError):
            folder.read_arrow(NAME, ["other"])


def test_a_file_without_a_record_is_whole_if_it_can_be_read(tmp_path):
    folder = CheckedFolder.of(Folder.at(tmp_path / "step"), "make it again")
    content = encode_arrow(table(50)).to_pybytes()
    folder.unchecked.write_bytes("cut.arrow", content[:-3])
    folder.unchecked.write_bytes(NAME, content)
    assert [folder.is_whole(name) for name in ("cut.arrow", NAME)] == [False, True]
    assert folder.record(NAME)["size"] == len(content)
    folder.unchecked.write_bytes("odd.arrow", b"no arrow")
    assert arrow_footer(b"no arrow") is not None


def test_a_file_that_is_not_there_is_not_found(folder):
    with pytest.raises(FileNotFoundError):
        folder.read_arrow(NAME)


def test_an_object_store_is_asked_for_each_wanted_byte_once_in_few_requests(tmp_path):
    storage = CountedStorage()
    folder, given = storage.folder(str(tmp_path)), table(4000, width=128)
    folder.write_arrow(NAME, given)
    size, key = folder.size(NAME), f"{tmp_path}/{NAME}"
    small = ["used", "name", "size"]
    for columns, requests in ((small, 2), (["wide"], 3), ([*small, "wide", "other"], 4), (None, 1)):
        storage.read_bytes.clear()
        storage.requests.clear()
        found = folder.read_arrow(NAME, columns)
        assert found.equals(given.select(found.column_names))
        wanted = sum(column.nbytes for column in found.columns)
        assert storage.read_bytes[key] <= (size if columns is None else min(wanted + 2**18 + 2**14, 1.01 * size))
        assert storage.requests[key] <= requests
