"""`kplm suggest`: which images to label for `kplm adapt`."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number, add_points
from ray_kplm.ranges import COUNTS, SEEDS

STRATEGIES = ("diverse", "spread", "uncertain", "both", "random")
"""`points.selection.STRATEGIES`, which imports NumPy."""


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Choose the images to label. They are written to OUT/images with the points that the run finds there, to correct in "
        "Label Studio (OUT/label_studio) or in a tool that reads COCO keypoints (OUT/coco.json); OUT/suggested.png shows them."
    )
    epilog = (
        "Examples:\n"
        "  kplm suggest runs/mine --count 20 tolabel\n"
        "  kplm suggest runs/mine tolabel --names nose,left_eye,right_eye   # own points, which are set by hand\n"
        "  kplm suggest runs/mine more --labeled tolabel/coco.json --count 10\n"
        "  kplm suggest runs/mine new --images photos\n"
        "  kplm adapt runs/mine tolabel/coco.json --name mine               # when they are labelled\n\n"
        "Strategies of --by:\n"
        "  diverse    the middle image of each of COUNT clusters, by landmarks and by what the network sees there\n"
        "  spread     the image farthest from those chosen, again and again: the most unusual ones\n"
        "  uncertain  those whose landmarks the run is least sure of\n"
        "  both       diverse among the less sure half\n"
        "  random     any"
    )
    parser = command(commands, "suggest", _suggest, text, epilog)
    parser.add_argument(
        "run", metavar="RUN", help="the run directory, or with --images the folder of an exported detector"
    )
    parser.add_argument("out", metavar="OUT", help="where the images are written: a new folder or URI")
    parser.add_argument("--count", type=Number(int, COUNTS), default=20, help="number of images")
    parser.add_argument("--by", choices=STRATEGIES, default="diverse", help="how they are chosen")
    parser.add_argument("--images", metavar="FOLDER", help="choose from these; default: the run's training images")
    parser.add_argument(
        "--labeled", metavar="LABELS", nargs="+", default=[],
        help="files of annotations as for `kplm adapt`: images that they annotate are left out",
    )  # fmt: skip
    parser.add_argument(
        "--names", metavar="A,B,...", help="names of your own points: none is set, the labels to give have these names"
    )
    add_points(parser)
    parser.add_argument(
        "--candidates", type=Number(int, COUNTS), default=5000, metavar="N",
        help="images to choose from at most, drawn at random",
    )  # fmt: skip
    parser.add_argument("--seed", type=Number(int, SEEDS), default=0, help="of what is drawn")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps: where the network runs"
    )
    add_json(parser, "the images that were chosen")


def _suggest(options: argparse.Namespace) -> Result:
    run = checks.detector(options.run)
    checks.points(run, options.points)
    if options.images is not None:
        checks.source(options.images)
    elif run.config.dataset:
        checks.dataset_of(run)
    for labels in options.labeled:
        checks.source(labels)
    checks.target(options.out, "OUT")
    with options.console.loading("PyTorch"):
        from ray_kplm.analysis.suggest import SuggestOptions, suggest
        from ray_kplm.network.compute import choose_device
    choose_device(options.device)
    kept = ("count", "by", "images", "points", "candidates", "seed")
    names = tuple(name.strip() for name in options.names.split(",")) if options.names else ()
    chosen = SuggestOptions(
        **{name: getattr(options, name) for name in kept}, names=names, labeled=tuple(options.labeled)
    )
    report = suggest(run, options.out, chosen, device=options.device, progress=options.console.show)
    return Result(str(report), report.figures())
