"""Figures of a run as PNG bytes, drawn without pyplot, whose state is global."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import ArrayLike

from ray_kplm.evaluation.regression import cumulative_curve

PANEL_INCHES = (4.0, 3.0)
DOTS_PER_INCH = 120
_ERROR_TICKS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 60, 100)
"""Errors, percent, that a logarithmic axis names."""


def cumulative_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str) -> bytes:
    """Return a PNG of the thesis' CED figure: a forward and a backward panel with one line for each entry of `curves`.

    Args:
        curves: Name -> forward errors (L,) and backward errors (K,) by landmark, in percent of the normaliser, unsorted.
        title: Title of the figure.

    Raises:
        ValueError: `curves` is empty.
    """
    if not curves:
        raise ValueError("curves {}: there is nothing to draw; give at least one name with its errors")
    figure = _figure(rows=1, columns=2)
    for panel, (direction, counted) in enumerate((("Forward", "annotated"), ("Backward", "discovered"))):
        axes = figure.add_subplot(1, 2, panel + 1)
        for name, errors in curves.items():
            running = cumulative_curve(errors[panel])
            axes.plot(np.arange(1, len(running) + 1), running, label=name)
        axes.set_title(direction)
        _label(axes, f"{counted} landmarks, best first", "mean so far, % of normaliser")
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
    figure.suptitle(title)
    return _png(figure)


def errors_over(
    name: str, values: ArrayLike, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], base: float | None
) -> bytes:
    """Return a PNG of errors against a varied parameter, with the deviation over seeds as bars (as thesis Fig. 6.5).

    Args:
        name: Name of the parameter.
        values: (V,), ascending.
        curves: Label -> mean (V,) and standard deviation (V,), in percent of the normaliser, NaN where unknown.
        base: Error of the mean shape; None if unknown.
    """
    figure = _figure(rows=1, columns=2)
    axes = figure.add_subplot(1, 1, 1)
    for label, (means, deviations) in curves.items():
        axes.errorbar(np.asarray(values), np.asarray(means), np.asarray(deviations), label=label, marker="o", capsize=3)
    if base is not None:
        axes.axhline(base, color="grey", linestyle="--", label="mean shape")
    axes.set_xlabel(name)
    axes.set_ylabel("NME, % of normaliser")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def errors_by_labels(panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]]]) -> bytes:
    """Return a PNG of test errors against the number of labelled images, on logarithmic axes.

    Args:
        panels: Title of a panel -> label of a curve -> numbers of labels (V,), ascending, errors (V,) in percent of the
            normaliser and their standard deviations (V,).
    """
    figure = _figure(rows=1, columns=max(2, len(panels)))
    for panel, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), panel + 1)
        for label, (counts, means, deviations) in curves.items():
            axes.errorbar(
                np.asarray(counts), np.asarray(means), np.asarray(deviations), label=label, marker="o", capsize=3
            )
        counted = sorted({int(count) for counts, _, _ in curves.values() for count in np.asarray(counts)})
        axes.set_title(title)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator(counted))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.yaxis.set_major_locator(FixedLocator(_ERROR_TICKS))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.set_xlabel("labelled images")
        axes.set_ylabel("test NME, % of normaliser")
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure)


def agreement_over(rows: Sequence[Mapping[str, Any]], chosen: int) -> bytes:
    """Return a PNG of the evidence for the number of landmarks: agreement, that by chance, and the excess with its error.

    Args:
        rows: For each K a row, see `steps.choose.rows`.
        chosen: The chosen K.
    """
    values = [row["landmarks"] for row in rows]
    figure = _figure(rows=1, columns=2)
    axes = figure.add_subplot(1, 1, 1)
    axes.plot(values, [row["agreement"] for row in rows], marker=".", label="agreement of two halves of the images")
    axes.plot(values, [row["chance"] for row in rows], marker=".", label="of points without structure")
    excess, errors = [row["excess"] for row in rows], [row["standard_error"] for row in rows]
    axes.errorbar(values, excess, errors, label="excess", marker="o", capsize=3)
    axes.axvline(chosen, color="grey", linestyle="--", label=f"chosen: K = {chosen}")
    _label(axes, "landmarks, K", "adjusted Rand index")
    axes.legend()
    return _png(figure)


def _figure(rows: int, columns: int) -> Figure:
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _label(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # landmarks are counted
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
