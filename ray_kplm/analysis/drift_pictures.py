"""What `kplm drift` shows beside its text: a sheet of the most unusual images, and a page."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ray_kplm.analysis.drift import DriftReport
from ray_kplm.analysis.drift_measures import measured, picture_of
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import contact_sheet, encode_png
from ray_kplm.report.drift_page import Shown, drift_page
from ray_kplm.report.drift_table import Began, Compared
from ray_kplm.storage import Folder

_TYPICAL = 12
"""Training images on the page."""
_COLUMNS = 6


def compared(report: DriftReport) -> Compared:
    """Return what is told of a report."""
    ids = report.new["image_id"].to_pylist()
    since = report.since
    began = (
        None
        if since is None
        else Began(
            since.kind,
            since.label,
            None if since.image is None else ids[since.image],
            since.before,
            since.after,
            since.levels,
            since.p,
        )
    )
    return Compared(
        report.run,
        report.source,
        report.drift,
        ids,
        report.reference.num_rows,
        report.total,
        report.rejected_kinds,
        report.rejected[0] if report.rejected else None,
        began,
        report.notes,
    )


def worst_sheet(report: DriftReport, count: int) -> bytes:
    """Return a sheet of the most unusual new images with their landmarks, as PNG."""
    shown = _shown(report, report.new, [one.row for one in report.drift.worst(count)])
    title = f"{report.run}: the {len(shown)} most unusual of {report.new.num_rows} images of {report.source}"
    images, points = [one.image for one in shown], [one.xy for one in shown]
    return encode_png(contact_sheet(images, points, columns=_COLUMNS, title=title))


def page(report: DriftReport, count: int, path: str) -> None:
    """Write the page of a report to a file, with as many of the most unusual images as `count` says."""
    unusual = _shown(report, report.new, [one.row for one in report.drift.worst(count)])
    usual = np.linspace(0, report.reference.num_rows - 1, min(_TYPICAL, report.reference.num_rows)).round().astype(int)
    typical = _shown(report, report.reference, usual.tolist())
    series = None if report.times is None else report.drift.score[report.times.order].tolist()
    html = drift_page(compared(report), unusual, typical, series)
    at = Folder.at(path)
    at.parent.write_bytes(at.name, html.encode())


def _shown(report: DriftReport, table: pa.Table, rows: list[int]) -> list[Shown]:
    """Return images of a table, with their landmarks in pixels of the small pictures that the table holds."""
    xy, shown = measured(table, report.side).xy, []
    for row in rows:
        image = picture_of(table, row)
        shown.append(Shown(image, coordinates.apply(coordinates.scaling(len(image) / report.side), xy[row])))
    return shown
