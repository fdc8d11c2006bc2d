"""Figures are drawn with what they were given."""

import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from ray_kplm.report.figures import cumulative_curves, errors_by_labels

ERRORS = (np.array([4.0, 2.0, 6.0]), np.array([8.0, 4.0]))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved while the test runs."""
    figures = []
    save = Figure.savefig

    def keep(figure, *arguments, **keywords):
        figures.append(figure)
        return save(figure, *arguments, **keywords)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png), format="png")


def test_cumulative_curves_draw_running_means_in_two_labelled_panels(drawn):
    png = cumulative_curves({"round 1": ERRORS, "round 2": (ERRORS[0] / 2, ERRORS[1] / 2)}, "faces")
    forward, backward = drawn[0].axes
    np.testing.assert_allclose(forward.lines[0].get_xydata(), [[1, 2], [2, 3], [3, 4]])
    np.testing.assert_allclose(backward.lines[1].get_xydata(), [[1, 2], [2, 3]])
    assert [text.get_text() for text in forward.get_legend().get_texts()] == ["round 1", "round 2"]
    assert forward.get_xlabel() == "annotated landmarks, best first"
    assert backward.get_xlabel() == "discovered landmarks, best first"
    assert all(axes.get_ylabel().endswith("% of normaliser") for axes in (forward, backward))
    assert drawn[0].get_suptitle() == "faces"
    assert pixels(png).std() > 0


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        cumulative_curves({}, "none")


def test_no_pyplot_figure_is_left_behind():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    cumulative_curves({"run": ERRORS}, "faces")
    assert pyplot.get_fignums() == before


def test_errors_by_labels_have_a_panel_each(drawn):
    curve = ([5, 20, 100], [12.0, 9.0, 8.0], [1.0, 0.2, 0.0])
    png = errors_by_labels(
        {"68 points": {"map": curve, "scratch": ([20, 100], [30.0, 20.0], [0.0, 0.0])}, "5": {"map": curve}}
    )
    first, second = drawn[0].axes
    assert [axes.get_title() for axes in (first, second)] == ["68 points", "5"]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["map", "scratch"]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["5", "20", "100"]
    assert pixels(png).std() > 0
