"""The page in a real browser: a script simulates the user and records what is shown."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from ray_kplm.report.run_page import build_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: `apt-get install chromium`")

PLAY = """
const seen = {errors: []};
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.blockedURI));
"""
USER = """
const $ = (text) => document.querySelector(text);
const shots = () => [...document.querySelectorAll(".shot")].filter((item) => !item.hidden);
const drawn = () => [...shots()[0].querySelectorAll("circle")].filter((c) => getComputedStyle(c).display !== "none").length;
const order = () => shots().map((shot) => +shot.dataset.index);
const pick = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("change")); };
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const large = () => [$("#large").open, $("#large-title").textContent, $("#large-picture").querySelectorAll("text").length];
const steps = {
  opened: () => [shots().length, drawn(), $("#status").textContent, order().slice(0, 3)],
  more: () => { $("#more").click();
    return [shots().length, $("#more").hidden, document.activeElement.closest(".shot") !== null]; },
  worst: () => { pick("#order", "worst"); return order().slice(0, 3); },
  given: () => { pick("#order", "given"); return order().slice(0, 3); },
  landmark: () => { pick("#order", "best"); pick("#landmark", "2");
    return [drawn(), $("#status").textContent, order()[0], shots()[0].querySelector(".caption").textContent]; },
  card: () => { $("[data-show='3']").click(); return [$("#landmark").value, document.activeElement.id]; },
  all: () => { pick("#landmark", ""); return drawn(); },
  numbers: () => { $("#numbers").click(); return shots()[0].querySelector("svg").textContent; },
  enlarged: () => { shots()[0].querySelector("button").click(); return large(); },
  next: () => { press("ArrowRight"); return large(); },
  closed: () => { $("#large").close(); return $("#large").open; },
  broken: () => [...document.images].filter((image) => image.complete && image.src && !image.naturalWidth).length,
  overflow: () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
};
addEventListener("load", () => {
  for (const [name, step] of Object.entries(steps)) seen[name] = step();
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
});
"""


def browse(page, folder, *options):
    """Return what the simulated user saw, and the messages of the console."""
    head, body = page.split("<title>", 1)
    path = folder / "page.html"
    path.write_text(f"{head}<script>{PLAY}</script><title>{body.replace('</body>', f'<script>{USER}</script></body>')}")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1])), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def browsed(evidence, tmp_path_factory):
    page = build_page(evidence(images=60, landmarks=4))
    return browse(page, tmp_path_factory.mktemp("browser"), "--window-size=500,900")


def test_the_page_runs_without_complaints(browsed):
    seen, console = browsed
    assert seen["errors"] == []
    assert console == []
    assert seen["broken"] == 0  # pictures that could not be read


def test_a_narrow_window_needs_no_sideways_scrolling(browsed):
    assert browsed[0]["overflow"] <= 0


def test_the_gallery_opens_with_the_best_and_shows_more_when_asked(browsed):
    seen, _ = browsed
    assert seen["opened"] == [36, 4, "36 of 60 shown", [59, 58, 57]]  # errors fall with the index
    assert seen["more"] == [60, True, True]


def test_the_gallery_is_ordered_as_chosen(browsed):
    seen, _ = browsed
    assert seen["worst"] == [0, 1, 2]
    assert seen["given"] == [0, 1, 2]


def test_one_landmark_is_shown_alone_and_orders_the_images(browsed, evidence):
    seen, _ = browsed
    relative_confidence = evidence(images=60).findings.relative_confidence()[:, 2]
    most_confident = int(relative_confidence.argmax())
    assert seen["landmark"] == [
        1,
        "36 of 60 shown, landmark 2",
        most_confident,
        f"confidence {round(100 * relative_confidence[most_confident])} %",
    ]
    assert seen["card"] == ["3", "landmark"]
    assert seen["all"] == 4
    assert seen["numbers"] == "0123"


def test_an_image_is_enlarged_with_numbers_and_left_by_keys(browsed):
    seen, _ = browsed
    assert seen["enlarged"] == [True, "image 59.png", 4]
    assert seen["next"] == [True, "image 58.png", 4]
    assert seen["closed"] is False
