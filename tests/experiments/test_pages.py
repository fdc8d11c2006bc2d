"""What a sweep leaves for people: table, CSV, configuration, picture."""

import csv
import io
import xml.etree.ElementTree as ET
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
import yaml

from ray_kplm.config import load_config
from ray_kplm.experiments.pages import best_yaml, results_csv, sweep_page, sweep_table
from ray_kplm.experiments.parallel_plot import parallel_coordinates, value_axis
from ray_kplm.experiments.space import configured
from ray_kplm.experiments.sweep_results import Trial

SPACE = {"stage1.batch_size": "8,16", "stage1.learning_rate": "loguniform:0.0001:0.01"}


def trial(number, batch, rate, state, **known):
    return Trial(number, f"{number:03d}", {"stage1.batch_size": batch, "stage1.learning_rate": rate}, state, **known)


TRIALS = [
    trial(0, 8, 0.0001, "finished", reports={0: 20.0, 1: 12.0}, objective=10.0, figures={"backward_nme": 11.5}, seconds=61),
    trial(1, 16, 0.001, "finished", reports={0: 20.0, 1: 9.0}, objective=8.0, figures={"backward_nme": None}),
    trial(2, 16, 0.01, "stopped", reports={0: 30.0, 1: 14.0}),
    trial(3, 8, 0.005, "failed", error="3 <points> an image"),
    trial(4, 8, 0.002, "running"),
]  # fmt: skip


@pytest.fixture
def results():
    return {
        "sweep": "a<b", "dataset": "cats", "objective": "forward_nme", "title": "forward NME, %", "space": SPACE,
        "best": asdict(TRIALS[1]), "trials": [asdict(t) for t in TRIALS],
    }  # fmt: skip


def test_the_table_begins_with_the_best(results):
    lines = sweep_table(results).splitlines()
    assert lines[0].split() == [
        "trial",
        "batch_size",
        "learning_rate",
        "forward",
        "NME,",
        "%",
        "backward",
        "time",
        "state",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["1", "0", "2", "4", "3"]
    assert lines[1].split() == ["1", "16", "0.001", "8.000", "-", "0", "s", "finished"]
    assert lines[2].split()[3:6] == ["10.000", "11.500", "61"]
    assert lines[3].endswith("stopped after round 1")
    assert lines[5].endswith("failed: 3 <points> an image")


def test_csv_has_a_row_a_trial(results):
    rows = list(csv.DictReader(io.StringIO(results_csv(results))))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[0]["stage1.learning_rate"] == "0.0001"
    assert [row["forward_nme"] for row in rows] == ["10.0", "8.0", "14.0", "", ""]
    assert rows[0]["backward_nme"] == "11.5"


def test_the_best_configuration_is_a_whole_one(tmp_path):
    base = load_config(None, ["dataset=d", "run=r", "method.landmarks=12", "stage1.decay_at=[0.5]"])
    config = configured(base, TRIALS[1].values, "r/001")
    path = tmp_path / "best.yaml"
    path.write_text(best_yaml(config, TRIALS[1], "forward NME, %"))
    assert load_config(path) == config
    assert "trial 1, forward NME, % 8" in path.read_text()
    assert yaml.safe_load(path.read_text())["run"] == "r/001"


def lines_of(svg):
    root = ET.fromstring(svg)
    return {line[0].text.split(",")[0]: line for line in root.iter("polyline")}, root


def points(line):
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_the_picture_has_a_line_a_measured_trial_from_axis_to_axis(results):
    lines, root = lines_of(parallel_coordinates(SPACE, "forward NME, %", results["trials"]))
    assert set(lines) == {"trial 0", "trial 1", "trial 2"}
    heads = [text.text for text in root.iter("text") if text.get("class") == "head"]
    assert heads == ["batch_size", "learning_rate", "forward NME, %"]
    zero, one, two = (points(lines[f"trial {number}"]) for number in range(3))
    top, bottom = one[2][1], two[2][1]
    assert one[2][1] < zero[2][1] < two[2][1]  # better is higher
    assert two[1][1] == pytest.approx(top)  # the highest rate
    assert zero[1][1] == pytest.approx(bottom)
    assert one[1][1] == pytest.approx((top + bottom) / 2)  # 0.001 lies in the middle of its decades
    assert one[0][1] == two[0][1] < zero[0][1]
    assert "best" in lines["trial 1"].get("class")
    assert "stopped" in lines["trial 2"].get("class")
    assert list(lines)[-1] == "trial 1"  # drawn last, on top


def test_axes_of_lists_are_ordered_by_number_or_name():
    axis = value_axis("batch_size", "32,8,16", [32, 8, 16, 8])
    assert [text for _, text in axis.ticks] == ["8", "16", "32"]
    assert axis.places == pytest.approx((5 / 6, 1 / 6, 1 / 2, 1 / 6))
    assert [text for _, text in value_axis("kind", "merge,kplm", ["merge", "kplm"]).ticks] == ["kplm", "merge"]
    whole = value_axis("clusters", "randint:50:54", [51])
    assert [text for _, text in whole.ticks] == ["50", "51", "52", "53"]
    assert whole.places == (dict((text, place) for place, text in whole.ticks)["51"],)
    assert value_axis("clusters", "randint:50:51", [50]).places == (0.5,)
    assert [text for _, text in value_axis("decay", "", ["[0.5, 0.9]", "[0.7]"]).ticks] == ["[0.5, 0.9]", "[0.7]"]


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses, self.rows, self.open = [], 0, []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.rows += tag == "tr"
        if tag not in ("meta", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "line"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(results):
    text = sweep_page(results)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.addresses == []
    assert "a&lt;b" in text
    assert "a<b" not in text
    assert "3 &lt;points&gt; an image" in text
    assert "trial 1 with <code>stage1.batch_size=16, stage1.learning_rate=0.001</code>" in text
    assert page.rows == 1 + 5 + (1 + 2) + (1 + 2)  # all trials, two batch sizes, two thirds of the rates


def test_a_page_before_the_first_trial_is_finished(results):
    for trials in ([], results["trials"][4:]):
        text = sweep_page({**results, "best": None, "trials": trials})
        assert "No trial is finished yet." in text
        assert "No trial has an objective yet." in text
        assert sweep_table({**results, "best": None, "trials": trials}).startswith("trial")
