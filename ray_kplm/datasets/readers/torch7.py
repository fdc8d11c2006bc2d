"""Tensors saved by Torch7 (Lua): the .t7 files of LS3D-W.

Little-endian binary, as `torch.save` writes it on 64-bit machines (torch7's doc/serialization.md and File.lua):

    tensor    int32 4 (a Torch object), int32 index, string "V 1", string class; int32 dimensions, int64 sizes, int64 strides,
              int64 offset (from 1), then its storage
    storage   int32 4, int32 index, string "V 1", string class; int64 length, the numbers

A string is its int32 length and its bytes. The oldest files have no version and lack the string "V 1".
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import DataError

_OBJECT = 4
_NUMBERS = {"Float": np.float32, "Double": np.float64, "Int": np.int32, "Long": np.int64, "Short": np.int16}
_MAX_DIMENSIONS = 16


class _Stream:
    """A reader of little-endian binary content."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, size: int) -> bytes:
        if size < 0 or self._at + size > len(self._content):
            raise ValueError("it ends too early")
        self._at += size
        return self._content[self._at - size : self._at]

    def integers(self, form: str, count: int = 1) -> tuple[int, ...]:
        return struct.unpack(f"<{count}{form}", self.take(count * struct.calcsize(form)))

    def string(self) -> str:
        return self.take(self.integers("i")[0]).decode("ascii")

    def class_name(self) -> str:
        kind, _ = self.integers("i", 2)
        if kind != _OBJECT:
            raise ValueError(f"it holds no tensor but an object of kind {kind}")
        name = self.string()
        return self.string() if name.startswith("V ") else name


def read_tensor(content: bytes, name: str) -> NDArray[Any]:
    """Read the tensor of a .t7 file.

    Args:
        content: Of the file, which has one tensor.
        name: Of the file, for error messages.

    Raises:
        DataError: The file is damaged or has no tensor.
    """
    try:
        return _tensor(_Stream(content))
    except (ValueError, KeyError, struct.error) as error:
        raise DataError(f"bad annotation: {name} is no tensor of Torch7: {error}") from None


def _tensor(stream: _Stream) -> NDArray[Any]:
    """Read a tensor with its storage. Raises ValueError with the reason if it cannot be read."""
    kind = _number_type(stream.class_name(), "Tensor")
    (dimensions,) = stream.integers("i")
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"it has {dimensions} dimensions")
    shape, strides = stream.integers("q", dimensions), stream.integers("q", dimensions)
    (offset,) = stream.integers("q")
    if _number_type(stream.class_name(), "Storage") is not kind:
        raise ValueError("its storage is of another type")
    (length,) = stream.integers("q")
    if not 0 <= math.prod(shape) <= length:
        raise ValueError("its storage is too small")
    numbers = np.frombuffer(stream.take(length * np.dtype(kind).itemsize), np.dtype(kind).newbyteorder("<"))
    places = np.full(shape, offset - 1)
    for steps in np.ix_(*(np.arange(size) * stride for size, stride in zip(shape, strides, strict=True))):
        places = places + steps
    if places.size and not (places.min() >= 0 and places.max() < length):
        raise ValueError("it reaches out of its storage")
    tensor: NDArray[Any] = numbers[places]
    return tensor


def _number_type(class_name: str, kind: str) -> type:
    """Return the number type of a class such as `torch.FloatTensor`, where `kind` is Tensor."""
    prefix, _, rest = class_name.partition("torch.")
    if prefix or not rest.endswith(kind) or rest.removesuffix(kind) not in _NUMBERS:
        raise ValueError(f"its class {class_name!r} is not supported")
    return _NUMBERS[rest.removesuffix(kind)]
