"""Arrays are read within bounds, sealed content is checked, and what makes no sense is one line."""

import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import yaml

from ray_kplm.errors import DamageError, RunError
from ray_kplm.storage.file_content import (
    ARRAYS_BYTES,
    check_seal,
    check_sealed_text,
    encode_table,
    load_array,
    load_arrays,
    parquet_footer,
    parsing,
    seal,
    seal_text,
)


def npz(compressed: bool = False, **arrays) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.float32(2.5),
        np.zeros((0, 4), np.float16), np.array(["a", "bcd"]), np.array([True, False]), np.ones(100_000),
    ],
    ids=["matrix", "fortran", "scalar", "empty", "text", "bool", "large"],
)  # fmt: skip
def test_arrays_come_back(array):
    for found in (load_array(npy(array)), load_arrays(npz(a=array))["a"], load_arrays(npz(True, a=array))["a"]):
        np.testing.assert_array_equal(found, array)
        assert (found.dtype, found.shape) == (np.asarray(array).dtype, np.asarray(array).shape)


def test_an_archive_that_expands_is_refused_with_the_number():
    bomb = npz(True, a=np.zeros(ARRAYS_BYTES // 8 + 1000))
    assert len(bomb) < ARRAYS_BYTES // 100
    with pytest.raises(ValueError, match=rf"{len(bomb)} bytes expand to \d+, more than {ARRAYS_BYTES}"):
        load_arrays(bomb)
    many = npz(True, **{f"a{i}": np.zeros(ARRAYS_BYTES // 80) for i in range(11)})
    with pytest.raises(ValueError, match="expand to"):
        load_arrays(many)


def test_what_is_not_compressed_may_be_large():
    large = np.random.default_rng(0).random(ARRAYS_BYTES // 8 + 1000)
    np.testing.assert_array_equal(load_arrays(npz(a=large))["a"], large)


def header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(3,)", "(-1,)", "(1099511627776, 1099511627776)"])
def test_a_header_that_names_more_than_there_is_is_refused(shape):
    content = header(shape) + bytes(16)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a.npy", content)
    for read in (lambda: load_array(content), lambda: load_arrays(archive.getvalue())):
        with pytest.raises(ValueError, match=r"its header names .* bytes, and 16 follow"):
            read()


def test_objects_are_refused():
    for read in (lambda: load_array(npy(np.array([{}]))), lambda: load_arrays(npz(a=np.array([{}])))):
        with pytest.raises(ValueError, match="Python objects"):
            read()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive", npz(a=np.arange(9))[:-30], bytes(500)])
def test_other_content_is_one_line_that_names_the_file(content):
    for read in (load_arrays, load_array):
        with pytest.raises(DamageError) as caught, parsing("runs/a/clusters.npz", "make it again"):
            read(content)
        assert str(caught.value).startswith("runs/a/clusters.npz: is damaged or of another kind (")
        assert str(caught.value).endswith("); make it again")
        assert "\n" not in str(caught.value)


def test_errors_of_storage_and_of_users_are_left_as_they_are():
    for error in (FileNotFoundError("x"), PermissionError(13, "no"), RunError("busy")):
        with pytest.raises(type(error)) as caught, parsing("a", "b"):
            raise error
        assert caught.value is error
    for error in (
        OSError("CRC checksum verification failed"),
        KeyError("xy"),
        yaml.YAMLError("a\nb"),
        pa.ArrowInvalid("x"),
    ):
        with pytest.raises(DamageError), parsing("a", "b"):
            raise error


def test_a_seal_notices_every_change():
    sealed = json.loads(json.dumps(seal({"b": (1, 2.5), "a": {"x": None, 3: True}})))
    check_seal(sealed)
    check_seal({"an": "older version"})
    for changed in ({**sealed, "b": [1, 2.6]}, {**sealed, "c": 0}, {k: v for k, v in sealed.items() if k != "b"}):
        with pytest.raises(ValueError, match="not what was written"):
            check_seal(changed)
    assert seal(sealed) == sealed


def test_sealed_text_notices_every_change_and_is_still_yaml():
    content = seal_text("a: 1\nb: [2, 3]\n")
    check_sealed_text(content)
    assert yaml.safe_load(content) == {"a": 1, "b": [2, 3]}
    start = content.index(b"\n")
    for changed in (
        content[:-1],
        content[:start],
        content.replace(b"[2", b"[4"),
        content + b"c: 1\n",
        content[: start + 4],
    ):
        with pytest.raises(ValueError, match="remove its first line"):
            check_sealed_text(changed)
    check_sealed_text(content[start + 1 :])  # an edited file


def test_tables_have_checksums_of_their_pages():
    content = bytearray(encode_table(pa.table({"x": np.random.default_rng(0).random(1000)})))
    assert parquet_footer(bytes(content))[-4:] == b"PAR1"
    content[2000] ^= 1
    with pytest.raises(OSError, match="CRC"):
        pa.parquet.read_table(pa.BufferReader(bytes(content)), page_checksum_verification=True)
