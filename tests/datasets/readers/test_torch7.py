"""Torch7's tensors, against a published dump and the documented layout."""

import struct

import numpy as np
import pytest

from ray_kplm.datasets.readers.torch7 import read_tensor
from ray_kplm.errors import DataError

# hexdump of torch.save('tensor-a.t7', torch.rand(2, 3)) in gist.github.com/Atcold/4b8f320c3c4035984363, up to its storage.
PUBLISHED = bytes.fromhex(
    "04000000 01000000 03000000 562031 11000000 746f7263682e466c6f617454656e736f72 02000000"
    "0200000000000000 0300000000000000 0300000000000000 0100000000000000 0100000000000000 04000000 02000000"
)


def string(text: str) -> bytes:
    return struct.pack("<i", len(text)) + text.encode()


def saved(values: np.ndarray, kind: str = "Float", version: bool = True, offset: int = 1) -> bytes:
    """A C-contiguous tensor as torch.save writes it; `offset` - 1 numbers stand before it in its storage."""
    head = string("V 1") if version else b""
    strides = np.cumprod((1, *values.shape[:0:-1]))[::-1]
    number = {"Float": "<f4", "Double": "<f8", "Long": "<i8"}[kind]
    numbers = np.concatenate([np.full(offset - 1, 99), values.ravel()]).astype(number)
    return b"".join(
        [
            struct.pack("<ii", 4, 1) + head + string(f"torch.{kind}Tensor"),
            struct.pack(f"<i{2 * values.ndim}qq", values.ndim, *values.shape, *strides, offset),
            struct.pack("<ii", 4, 2) + head + string(f"torch.{kind}Storage"),
            struct.pack("<q", numbers.size) + numbers.tobytes(),
        ]
    )


VALUES = np.array([[0.7478, 0.5815, 0.5786], [0.6519, 0.1937, 0.6384]], np.float32)


def test_a_published_tensor_is_read():
    storage = string("V 1") + string("torch.FloatStorage") + struct.pack("<q", 6) + VALUES.tobytes()
    assert np.array_equal(read_tensor(PUBLISHED + storage, "a.t7"), VALUES)
    assert saved(VALUES) == PUBLISHED + storage


@pytest.mark.parametrize(("kind", "version", "offset"), [("Double", True, 1), ("Float", False, 3), ("Long", True, 5)])
def test_all_types_offsets_and_files_without_a_version_are_read(kind, version, offset):
    values = np.arange(12).reshape(4, 3)
    assert np.array_equal(read_tensor(saved(values, kind, version, offset), "a.t7"), values)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a tensor at all",
        saved(VALUES)[:-4],
        saved(VALUES).replace(b"FloatTensor", b"CudaxTensor"),
        struct.pack("<id", 1, 3.0),  # a number
        saved(VALUES).replace(struct.pack("<qq", 3, 1), struct.pack("<qq", 300, 1)),  # strides
        saved(VALUES).replace(struct.pack("<qq", 2, 3), struct.pack("<qq", 2**40, 2**20)),  # sizes
    ],
)
def test_content_that_is_no_tensor_is_refused(content):
    with pytest.raises(DataError, match=r"bad annotation: a\.t7 is no tensor of Torch7"):
        read_tensor(content, "a.t7")
