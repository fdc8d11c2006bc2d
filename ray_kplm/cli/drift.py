"""`kplm drift`: are new images like those of the training, and does the detector still work on them?"""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.analysis.drift_choices import GROUPS, TIMES
from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number, add_limits, add_objects
from ray_kplm.ranges import Range

DRIFT = 12
"""Exit code if the images are not like those of the training."""


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Compare new images with those that a run was trained on. What is compared is the pictures, where the object is in "
        "them, and how well the detector works; the answer says what has changed, by how much, in which images, since when. "
        "The test aims at 5 false alarms in 100 at most. No annotation is needed."
    )
    epilog = (
        "Examples:\n"
        "  kplm drift runs/mine photos\n"
        "  kplm drift runs/mine clip.mp4 --html drift.html --worst worst.png   # since which frame?\n"
        "  kplm drift runs/mine photos --time mtime --json\n"
        "  kplm drift runs/mine data/mine --split test\n\n"
        f"The exit code is 0 if there is no drift, and {DRIFT} if there is. What is measured of the training images is kept\n"
        "in RUN/drift, so only the first call measures them, and the dataset may be gone later."
    )
    parser = command(commands, "drift", _drift, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "source", nargs="+", metavar="IMAGES",
        help="a folder of images and videos, a .parquet file, a dataset, or any number of image files, videos, quoted patterns "
        "and folders",
    )  # fmt: skip
    add_objects(parser)
    parser.add_argument(
        "--images",
        type=Number(int, Range(1, 10**6)),
        default=600,
        help="look at so many new images at most, evenly spread over all",
    )
    parser.add_argument(
        "--groups", choices=GROUPS,
        help="which new images are alike, as frames of a video are: those of a folder, or none; default: those of a video or "
        "of a group that the source states, else as in the training",
    )  # fmt: skip
    parser.add_argument(
        "--time", choices=TIMES, default="auto",
        help="what says when an image was made: its frame, EXIF, the time of the file, or the order of the names; auto: the "
        "frame of a single video, or EXIF",
    )  # fmt: skip
    parser.add_argument("--show", type=Number(int, Range(1, 1000)), default=10, help="list so many unusual images")
    parser.add_argument("--worst", metavar="FILE", help="also draw these images with their landmarks: .png, .jpg, ...")
    parser.add_argument("--html", metavar="FILE", help="also write a page with the distributions and these images")
    add_limits(parser)
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    add_json(parser, "the verdict, the statistics, the unusual images and since when")


def _drift(options: argparse.Namespace) -> Result:
    from ray_kplm.analysis.picture_file import PictureFile

    sheet = PictureFile.at(options.worst) if options.worst else None
    if options.html:
        checks.file_name(options.html, ".html")
        checks.target_file(options.html, options.run, "--html")
    run = checks.finished_run(options.run)
    checks.sources(options.source, options.boxes)
    checks.target(options.run, "RUN")
    with options.console.loading("PyTorch"):
        from ray_kplm.analysis.drift import DriftOptions, drift
        from ray_kplm.analysis.drift_pictures import compared, page, worst_sheet
        from ray_kplm.datasets.limits import Limits
        from ray_kplm.report.drift_table import drift_figures, drift_lines
    chosen = DriftOptions(
        options.boxes, options.margin, options.split, Limits(options.max_pixels, options.max_bytes), options.images,
        options.groups, options.time,
    )  # fmt: skip
    report = drift(run, options.source, chosen, device=options.device, progress=options.console.show)
    told, written = compared(report), []
    if sheet is not None:
        sheet.write(worst_sheet(report, options.show))
        written.append(options.worst)
    if options.html:
        page(report, options.show, options.html)
        written.append(options.html)
    text = "\n".join([*drift_lines(told, options.show), *([""] if written else []), *written])
    code = DRIFT if report.drift.is_drift else 0
    return Result(text, drift_figures(told, options.show), code)
