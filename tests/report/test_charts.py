"""Charts place what they are given."""

import re

import numpy as np
import pytest

from ray_kplm.report.charts import HEIGHT, WIDTH, format_number, line_chart, scatter


def lines(svg):
    """The corners of each line."""
    return [
        [tuple(map(float, pair.split())) for pair in path[1:].split("L")]
        for path in re.findall(r'class="line s\d" d="(M[^h"]+)"', svg)
    ]


def test_lines_rise_with_their_values_and_keep_their_order():
    svg = line_chart({"a": [(0, 1.0), (1, 3.0), (2, 2.0)]}, title="T", x_label="round")
    [[first, middle, last]] = lines(svg)
    assert first[0] < middle[0] < last[0]
    assert middle[0] - first[0] == pytest.approx(last[0] - middle[0], abs=0.2)
    assert middle[1] < last[1] < first[1]  # y points down
    assert first[1] - last[1] == pytest.approx(last[1] - middle[1], abs=0.2)  # 1, 2, 3 at equal distances
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in (first, middle, last))


def test_gaps_are_left_out_but_keep_their_place_on_the_axis():
    svg = line_chart({"a": [(0, 1.0), (1, None), (2, float("nan"))], "b": [(0, 1.0), (2, 1.0)]}, title="T", x_label="")
    one, two = lines(svg)
    assert len(one) == 1
    assert one[0] == two[0]
    assert two[1][0] > WIDTH / 2


def test_one_value_is_a_dot():
    svg = line_chart({"a": [(3, 0.0)]}, title="T", x_label="")
    assert 'class="dots s0"' in svg
    assert "nan" not in svg


def test_an_empty_chart_says_so():
    assert "No figures" in line_chart({"a": [(0, None)]}, title="T", x_label="")


def test_the_axis_has_round_numbers_that_hold_all_values():
    svg = line_chart({"a": [(0, 0.3), (1, 6.9)]}, title="T", x_label="")
    ticks = [float(text) for text in re.findall(r'text-anchor="end">([\d.]+)<', svg)]
    assert ticks == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (6.9, ["0", "2", "4", "6", "8"]),
        (0.001, ["0", "2.5e-4", "5e-4", "7.5e-4", "1e-3"]),
        (90000.0, ["0", "25,000", "50,000", "75,000", "100,000"]),
    ],
)
def test_the_axis_names_are_short(most, ticks):
    svg = line_chart({"a": [(0, 0.0), (1, most)]}, title="T", x_label="")
    assert re.findall(r'text-anchor="end">([^<]+)<', svg) == ticks


def test_names_are_escaped():
    svg = line_chart({"<b>": [(0, 1.0)], "c": [(0, 2.0)]}, title='"><script>', x_label="<i>", x_names={0: "<u>"})
    assert not re.search(r"<(b|i|u|script)>", svg)
    assert svg.count('"') % 2 == 0


def test_a_scatter_keeps_shapes_and_names_groups():
    xy = np.array([[0.0, 0], [4, 0], [4, 2], [0, 2], [2, 1]])
    svg = scatter(xy, [0, 0, 1, 1, -1], title="T")
    paths = dict(re.findall(r'class="(k0|k1|none)" d="([^"]+)"', svg))
    corners = {
        name: [tuple(map(float, p.split())) for p in re.findall(r"M([\d. ]+)h0", path)] for name, path in paths.items()
    }
    (a, b), (c, d) = corners["k0"], corners["k1"]
    assert b[0] - a[0] == pytest.approx(2 * (c[1] - b[1]), abs=0.2)  # twice as wide as high
    assert d[0] == a[0]
    assert re.findall(r">(-?\d+)</text>", svg) == ["0", "1"]  # what belongs to no landmark has no name


@pytest.mark.parametrize(
    ("value", "text"),
    [(6.2, "6.20"), (21.27, "21.3"), (100.0, "100"), (3, "3"), (0.0, "0"), (0.000812, "0.000812"), (12345.6, "12,346")],
)
def test_numbers_have_three_figures(value, text):
    assert format_number(value) == text
