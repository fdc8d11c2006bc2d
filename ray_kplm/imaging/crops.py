"""Stored crops as arrays."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def decode(encoded: pa.BinaryScalar) -> NDArray[np.uint8]:
    """A stored crop: uint8 (H, W, 3) RGB. What `ingest` stored can be decoded."""
    image = cv2.imdecode(np.frombuffer(encoded.as_buffer(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
