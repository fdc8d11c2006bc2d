"""The page in a real browser, from the command to the files: a user with mouse and keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ray_kplm.labels.reading import read_labels
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.points.stored import point_folder, read_point_set
from ray_kplm.run import Run
from ray_kplm.view.app import make_app
from ray_kplm.view.server import serve

from .browser import CHROMIUM, Browser
from .conftest import IMAGES, K, open_workspace

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: `apt-get install chromium`")
ROOT = Path(__file__).parents[2]
SHOWN = f"document.body.dataset.shown?.endsWith('{IMAGES}/{IMAGES}')"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One browser for all tests of this file: its start takes longest."""
    one = Browser(tmp_path_factory.mktemp("browser"))
    yield one
    one.close()


@pytest.fixture
def browser(chromium):
    """A browser that has no complaint in the end, and asked nobody but the page's server."""
    chromium.problems.clear()
    chromium.requested.clear()
    yield chromium
    assert chromium.problems == []
    assert {url.split("/")[2].split(":")[0] for url in chromium.requested} == {"127.0.0.1"}


@pytest.fixture
def page(run, browser):
    """The browser with the page of a run; `page.address`, and the workspace in the same process."""
    workspace = open_workspace(run)
    with serve(make_app(workspace), None) as address:
        browser.open(address)
        browser.until(SHOWN)
        browser.address, browser.workspace = address, workspace
        yield browser


def place(browser: Browser, k: int) -> list[float]:
    """Where a point is, pixels of the picture."""
    text = browser.see(f"document.querySelector('#stage .mark[data-k=\"{k}\"]').getAttribute('transform')")
    return [float(value) for value in text[len("translate(") :].split(")")[0].split()]


def labels_of(run: Run):
    return read_labels(f"{run.folder}/labels/labels.json")


def test_images_are_shown_with_their_points_and_none_is_broken(page):
    page.until("[...document.querySelectorAll('#images img')].slice(0, 6).every((image) => image.naturalWidth)")
    assert page.see("document.querySelectorAll('#images circle').length") == IMAGES * K
    assert page.see("document.getElementById('source').textContent") == "creatures"
    assert page.see("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.choose("#split", "test")
    page.until("document.querySelectorAll('#images li').length === 6")
    page.choose("#point", "2")
    page.until("document.querySelectorAll('#images circle').length === 6")
    page.choose("#order", "least")
    sure = "[...document.querySelectorAll('#images .sure')].map((one) => parseInt(one.textContent))"
    page.until(f"((sure) => sure.length === 6 && sure.every((one, i) => !i || one >= sure[i - 1]))({sure})")


def test_a_point_is_dragged_and_moved_by_keys_and_the_image_is_saved(page, run):
    page.click("#images li:first-child button")
    page.until("document.body.dataset.open === '0'")
    before = [place(page, k) for k in range(K)]
    scale = page.see("document.getElementById('stage').getScreenCTM().a")
    page.drag("#stage .mark[data-k='1'] .hit", 6 * scale, 4 * scale)
    moved = place(page, 1)
    np.testing.assert_allclose(moved, np.clip(np.add(before[1], [6, 4]), -0.5, 63.5), atol=0.3)
    assert page.see("document.activeElement.dataset.k") == "1"
    page.press("Tab")
    assert page.see("document.activeElement.dataset.k") == "2"
    ways = [("ArrowRight",), ("ArrowDown",), ("ArrowLeft", "Shift"), ("ArrowUp", "Control")]
    for key, *modifiers in ways:
        page.press(key, *modifiers)
    expected = np.array(before[2])
    for dx, dy in ((1, 0), (0, 1), (-10, 0), (0, -0.1)):
        expected = np.clip(np.add(expected, [dx, dy]), -0.5, 63.5)
    np.testing.assert_allclose(place(page, 2), expected, atol=1e-6)
    page.press("Tab")
    page.press("h")
    page.press("s")
    page.until("document.getElementById('labels').textContent.startsWith('1 labelled')")
    labels = labels_of(run)
    np.testing.assert_allclose(labels.xy[0], [before[0], moved, expected, before[3]], atol=2e-3)
    assert labels.visible.tolist() == [[True, True, True, False]]
    assert page.see("document.getElementById('one-status').textContent") == "4 of 4 points; labelled"


def test_changes_are_undone_and_done_again_and_points_removed(page, run):
    page.click("#images li:nth-child(2) button")
    page.until("document.body.dataset.open === '1'")
    before = place(page, 0)
    page.click("#row-0")
    page.press("ArrowLeft")
    page.press("ArrowLeft")  # one step with the one before
    page.press("Delete")
    assert page.see("document.querySelector('#row-0').textContent").endswith("not there")
    page.press("z", "Control")
    page.press("z", "Control")
    np.testing.assert_allclose(place(page, 0), before, atol=1e-6)
    page.press("y", "Control")
    np.testing.assert_allclose(place(page, 0), np.clip(np.subtract(before, [2, 0]), -0.5, 63.5), atol=1e-6)
    page.press("y", "Control")
    page.press("Enter")  # saves it, and goes to the next
    page.until("document.body.dataset.open === '2'")
    assert np.isnan(labels_of(run).xy[0, 0]).all()
    page.press("p")
    page.until("document.body.dataset.open === '1'")
    page.click("#unlabel")
    page.until("document.getElementById('labels').textContent.startsWith('0 labelled')")
    page.press("Escape")
    page.until("!document.body.dataset.open")
    page.until("document.activeElement.dataset.index === '1'")


def test_landmarks_are_named_joined_and_dropped(page, run):
    page.click("#open-panel")
    page.until(f"document.querySelectorAll('#diagram circle').length === {K}")
    page.fill("#points input[data-landmarks='0']", "nose")
    page.press("Tab")
    page.until("document.querySelector('#diagram [data-id=\"0\"]').getAttribute('aria-label') === 'nose'")
    page.see("document.querySelector('#diagram [data-id=\"0\"]').focus()")
    page.press("Enter")
    page.see("document.querySelector('#diagram [data-id=\"2\"]').focus()")
    page.press("Enter")
    page.until("document.querySelectorAll('#diagram .edge').length === 1")
    page.click("#points li:nth-child(4) button")  # Drop
    page.until("document.querySelectorAll('#points li').length === 3")
    page.click("#save-points")
    page.until("document.getElementById('message').textContent.startsWith('the points are saved')")
    made = read_point_set(point_folder(run.folder, "edited"))
    assert made.layout.names == ("nose", "landmark_1", "landmark_2")
    assert made.layout.skeleton == ((0, 2),)
    assert page.see("document.getElementById('set').value") == "edited"
    page.until(f"document.querySelectorAll('#images circle').length === {IMAGES * 3}")


def test_own_points_are_clicked_one_after_the_other(page, run):
    page.click("#open-own")
    page.until("document.getElementById('own').open")
    page.fill("#own-names", "nose\nleft eye")
    page.click("#own-save")
    page.until("document.body.dataset.open === '0'")
    assert page.see("document.getElementById('one-status').textContent").startswith("0 of 2 points")
    x, y = page.middle("#stage")
    page.click_at(x - 40, y)
    page.until("document.getElementById('one-status').textContent.startsWith('1 of 2')")
    page.press("ArrowRight")  # by keys: into the middle
    page.until("document.getElementById('one-status').textContent.startsWith('2 of 2')")
    np.testing.assert_allclose(place(page, 1), [31.5, 31.5])
    page.press("s")
    page.until("document.getElementById('labels').textContent.startsWith('1 labelled')")
    labels = labels_of(run)
    assert labels.names == ("nose", "left eye")
    scale = page.see("document.getElementById('stage').getScreenCTM().a")
    np.testing.assert_allclose(labels.xy[0], [[31.5 - 40 / scale, 31.5], [31.5, 31.5]], atol=0.5)


def test_what_another_tab_saved_is_told_before_it_is_replaced(page, run):
    page.click("#images li:first-child button")
    page.until("document.body.dataset.open === '0'")
    address = json.dumps(page.address)
    save = (
        "fetch(%s + 'api/label', {method: 'POST', headers: {'Content-Type': 'application/json', 'X-Kplm-Token': "
        "document.querySelector('meta[name=token]').content}, body: JSON.stringify({image: 0, revision: null, names: "
        "['landmark_0', 'landmark_1', 'landmark_2', 'landmark_3'], points: [[1, 1, 2], null, null, null]})})"
        ".then((reply) => reply.status)"
    )
    assert page.see(save % address) == 200  # as another tab does
    page.press("s")
    page.until("document.getElementById('message').classList.contains('wrong')")
    assert "another tab" in page.see("document.getElementById('message').textContent")
    np.testing.assert_allclose(labels_of(run).xy[0, 0], [1, 1])
    page.problems[:] = [one for one in page.problems if "409" not in one]  # the console notes the refusal
    page.press("s")
    page.until("document.getElementById('message').textContent.endsWith('is saved as labelled')")
    assert np.isfinite(labels_of(run).xy[0]).all()


def test_points_are_adapted_to_the_labels_and_shown(page, run):
    page.click("#open-own")
    page.fill("#own-names", "nose\nchin")
    page.click("#own-save")
    for number in range(6):  # clicked in six images, each time a little elsewhere
        page.until(f"document.body.dataset.open === '{number}'")
        x, y = page.middle("#stage")
        page.click_at(x + 20 * (number % 3), y - 100 + 15 * (number % 2))
        page.click_at(x + 10 * number, y + 100)
        page.until("document.getElementById('one-status').textContent.startsWith('2 of 2')")
        page.press("Enter")
    page.until("document.getElementById('labels').textContent.startsWith('6 labelled')")
    page.click("#open-adapt")
    page.fill("#adapt-name", "own2")
    page.click("#adapt-begin")
    page.until("document.getElementById('adapt-status').textContent === 'own2 is fitted and shown.'")
    head, *rows = page.see(
        "[...document.querySelectorAll('#adapt-result tr')].map((row) => row.children[0].textContent)"
    )
    assert (head, rows) == ("Point", ["nose", "chin", "all"])
    assert read_point_set(point_folder(run.folder, "own2")).layout.names == ("nose", "chin")
    page.press("Escape")
    page.until("!document.getElementById('adapt').open")
    assert page.see("document.getElementById('set').value") == "own2"
    page.until(
        "document.getElementById('one-status').textContent.startsWith('2 of 2 points; predicted')"
    )  # of the seventh
    (expected,) = LandmarkDetector.load(run.folder.path, points="own2").predict(page.workspace.gallery.stored(6))
    np.testing.assert_allclose([place(page, 0), place(page, 1)], expected.xy, atol=0.01)
    page.press("Escape")
    page.until(f"document.querySelectorAll('#images circle').length === {IMAGES * 2}")


@pytest.mark.slow
def test_the_command_prints_an_address_serves_this_machine_alone_and_ends_by_ctrl_c(
    finished, tmp_path, photos, chromium
):
    command = [sys.executable, "-m", "ray_kplm.cli", "view", finished.folder.path, str(photos), "--labels"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, str(tmp_path / "labels.json")], stderr=subprocess.PIPE, text=True, env=environment
    )
    killer = threading.Timer(300, process.kill)
    killer.start()
    try:
        lines = []
        while "Ctrl-C ends it" not in (line := process.stderr.readline()):
            assert line, lines
            lines.append(line)
        address = line.partition("http://")[2].partition(" ")[0]
        assert address.startswith("127.0.0.1:")
        chromium.open(f"http://{address}")
        chromium.until("document.querySelectorAll('#images circle').length === 20")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr.read()
    finally:
        killer.cancel()
        process.kill()
