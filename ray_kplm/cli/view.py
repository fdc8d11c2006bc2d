"""`kplm view`: a page of this machine to look at landmarks and to correct them."""

from __future__ import annotations

import argparse
import sys
import threading
import webbrowser
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, command
from ray_kplm.cli.parser import Number, add_points
from ray_kplm.errors import ConfigError
from ray_kplm.extras import check_installed
from ray_kplm.ranges import MIN_PROBABILITY, PROBABILITIES, Range
from ray_kplm.redaction import redact

LABELS = "labels/labels.json"
"""Where labels are written, below the run."""
_PACKAGES = ("starlette", "uvicorn")


def add(commands: Any) -> None:
    """Declare the command."""
    from ray_kplm.serving.options import PORTS

    text = (
        "Open a page to look at the landmarks of images and to correct them. The page names, drops and merges landmarks and "
        "joins them by edges, as `kplm edit` does. Points that are moved, or own points that are clicked, are saved as labels, "
        "a COCO keypoints file that `kplm adapt RUN LABELS` takes. The server listens on this machine alone; Ctrl-C ends it."
    )
    epilog = (
        "Examples:\n"
        "  kplm view runs/mine --open              # the images of the run's dataset\n"
        "  kplm view runs/mine photos              # images of a folder\n"
        "  kplm view runs/mine --points nose5      # points of `kplm adapt`\n"
        "  kplm view runs/mine photos --labels mine.json\n\n"
        "On another machine: ssh -L 8123:127.0.0.1:8123 HOST, there kplm view RUN --port 8123, here http://localhost:8123/"
    )
    parser = command(commands, "view", _view, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory, or the folder or file of an exported detector")
    parser.add_argument(
        "images", metavar="IMAGES", nargs="*",
        help="a folder of images, image files, quoted patterns, or a dataset; default: the dataset of the run",
    )  # fmt: skip
    add_points(parser)
    parser.add_argument(
        "--labels", metavar="FILE", help=f"where labels are written, and read if it is there; default: RUN/{LABELS}"
    )
    parser.add_argument("--split", choices=["train", "test"], help="this split of a dataset; default: both")
    parser.add_argument(
        "--max-images", type=Number(int, Range(1, 1_000_000)), default=10_000, metavar="N",
        help="show the first N images; what is known of each is in memory, not the image",
    )  # fmt: skip
    parser.add_argument(
        "--min-probability", type=Number(float, PROBABILITIES), default=MIN_PROBABILITY, metavar="P",
        help="least probability of a point that counts as found",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps: where the network runs"
    )
    parser.add_argument("--port", type=Number(int, PORTS), help="port to listen at; default: a free one")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def _view(options: argparse.Namespace) -> Result:
    check_installed(*_PACKAGES)
    run = checks.detector(options.run)
    checks.points(run, options.points)
    is_run = run.folder.is_file("config.yaml") and not run.folder.is_file(checks.EXPORTED)
    if not is_run and not (options.images and options.labels):
        raise ConfigError(f"{options.run}: is an exported detector, without images; name IMAGES and --labels FILE")
    images = options.images or [run.config.dataset]
    if options.images:
        checks.sources(images)
    else:
        checks.dataset_of(run)
    labels = options.labels or f"{options.run.rstrip('/')}/{LABELS}"
    checks.file_name(labels, ".json")
    checks.target_file(options.labels, options.run, "--labels")
    with options.console.loading("PyTorch"):
        from ray_kplm.network.compute import choose_device
        from ray_kplm.view.app import make_app
        from ray_kplm.view.server import serve
        from ray_kplm.view.workspace import Workspace
    choose_device(options.device)
    workspace = Workspace.open(
        run, images, labels, points=options.points, split=options.split, most=options.max_images, device=options.device,
        least=options.min_probability,
    )  # fmt: skip
    with serve(make_app(workspace), options.port) as address:
        # Said in spite of --quiet, as nobody finds the page without it.
        print(
            redact(f"kplm: {workspace.about()} {address} (labels: {labels}); Ctrl-C ends it"),
            file=sys.stderr,
            flush=True,
        )
        if options.open:
            webbrowser.open(address)
        threading.Event().wait()
    return Result("")
