"""Predicted landmarks as the formats take them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.points.layout import Layout
from tests.inference.export.cases import NAN, PARTNERS, ROWS, table


@pytest.fixture
def found() -> Predictions:
    """The predictions of `ROWS` in two parts; K = 3, the first two are mirror partners."""
    tables = [table(ROWS[:3]), table(ROWS[3:])]
    layout = Layout.of("creature", PARTNERS, ["left, eye", "right eye", "näse"])
    predictions = Predictions(lambda: tables, layout, 0.5, "0123456789abcdef0123", "1.2.3", "2026-11-30T08:00:00+00:00")
    return predictions.with_skeleton()


@pytest.fixture
def frames() -> Predictions:
    """Frames 3 and 7 of one video and frame 0 of another, an object in each."""
    with_video = schemas.SOURCE_LANDMARKS
    for field in (pa.field("sequence", pa.string()), pa.field("frame", pa.int64())):
        if field.name not in with_video.names:
            with_video = with_video.append(field)
    rows = [
        {
            "image_id": f"{video}#frame={frame}",
            "xy": [[frame + 0.25, 2.5], [NAN, NAN], [30.0, frame]],
            "confidence": [0.5, 0.0, 0.25],
            "probability": None,
            "found": [True, False, True],
            "width": 64,
            "height": 48,
            "sequence": video,
            "frame": frame,
        }
        for video, frame in [("day 1/clip.mp4", 3), ("day 1/clip.mp4", 7), ("other.avi", 0)]
    ]
    tables = [pa.Table.from_pylist(rows, with_video)]
    return Predictions(lambda: tables, Layout.of("creature", PARTNERS)).with_skeleton()


@pytest.fixture
def empty() -> Predictions:
    """Predictions of no picture."""
    return Predictions(list, Layout.of("creature", PARTNERS))


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[], list[str]]:
    """Return the files below `tmp_path`."""
    return lambda: sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
