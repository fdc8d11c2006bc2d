"""`kplm predict`: landmarks of new images, in the formats of other tools."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from ray_kplm.cli import checks, video_options
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number, add_limits, add_objects, add_points
from ray_kplm.cli.place import workers_for
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.inference.export.formats import FORMATS, check_formats
from ray_kplm.ranges import PART_IMAGES, PROBABILITIES

_OVERRIDE = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)+=")


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Find the landmarks of new images with a finished run. They are written in pixels of the images to OUT/part-*.parquet "
        "(image_id, xy, confidence, probability, found), images that cannot be read to OUT/rejected.parquet, and other formats "
        "beside them. The same command again continues a prediction that was interrupted; with other formats it adds them."
    )
    epilog = (
        "Examples:\n"
        "  kplm predict runs/mine photos landmarks --to csv coco\n"
        "  kplm predict runs/mine a.jpg b.png 'more/*.jpg' landmarks\n"
        "  kplm predict runs/mine clip.mp4 landmarks --render drawn.mp4 --smooth one-euro\n"
        "  find photos -type f -newer last | kplm predict runs/mine - landmarks --to slp --names nose,left_eye,right_eye\n"
        "  kplm predict runs/mine photos landmarks --boxes boxes.csv --to coco compute.gpus_per_worker=1\n\n"
        "Formats of --to, and what they write to OUT:\n"
        + "\n".join(f"  {name:<12} {one.files:<18} {one.text}" for name, one in FORMATS.items())
    )
    parser = command(commands, "predict", _predict, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory, or the folder of an exported detector")
    parser.add_argument(
        "source", nargs="+", metavar="SOURCE",
        help="a folder of images and videos, a .parquet file, a dataset, or any number of image files, videos, quoted patterns "
        "and folders; -: the names on standard input, one a line",
    )  # fmt: skip
    parser.add_argument("out", metavar="OUT", help="where the landmarks are written: a new folder or URI")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="compute.key=value",
        help="changes to the run's compute section: compute.threads=4 ...",
    )
    add_objects(parser)
    parser.add_argument(
        "--part-images",
        type=Number(int, PART_IMAGES),
        default=512,
        help="images in a part, which is read, processed and retried as a whole",
    )
    add_limits(parser)
    parser.add_argument(
        "--device", default="auto", metavar="NAME",
        help="auto, cpu, cuda or mps: where this process runs the network; on a Ray cluster compute.gpus_per_worker says so",
    )  # fmt: skip
    parser.add_argument(
        "--min-probability", type=Number(float, PROBABILITIES), default=None,
        help="least probability of a landmark that counts as found; default: 0.5",
    )  # fmt: skip
    parser.add_argument(
        "--to", nargs="+", action="extend", type=_formats, default=[], metavar="FORMAT",
        help=f"also write these formats: {', '.join(FORMATS)}; several by spaces or commas, after OUT",
    )  # fmt: skip
    parser.add_argument(
        "--names",
        metavar="A,B,...",
        help="names of the landmarks in these formats and in drawn videos; default: their own names, or landmark_0,...",
    )
    add_points(parser)
    parser.add_argument("--csv", action="store_true", help="the same as --to csv")
    parser.add_argument("--coco", action="store_true", help="the same as --to coco")
    video_options.add_video_options(parser)
    add_json(parser, "the numbers of images, what was rejected and the jitter of videos")


def _predict(options: argparse.Namespace) -> Result:
    from ray_kplm.config import from_dict, with_overrides

    words, formats = _split_formats(options.to)
    sources, out, overrides = _split_words([*options.source, options.out, *options.overrides, *words])
    check_formats(formats)
    sources = [name for source in sources for name in (_names(sys.stdin) if source == "-" else [source])]
    run = checks.detector(options.run)
    checks.points(run, options.points)
    config = from_dict(with_overrides(run.config.to_dict(), overrides))
    checks.sources(sources, options.boxes)
    checks.target(out, "OUT")
    video_options.check_package(sources)
    if options.render is not None:
        checks.target(os.path.dirname(options.render) or ".", "--render")
    with options.console.loading("PyTorch"):
        from ray_kplm.datasets.limits import Limits
        from ray_kplm.inference.images import PredictOptions, predict_images
        from ray_kplm.network.compute import choose_device
    choose_device(options.device)
    names = ("boxes", "margin", "split", "part_images", "csv", "coco", "points")
    limits = Limits(options.max_pixels, options.max_bytes)
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.min_probability is not None:
        given["min_probability"] = options.min_probability
    given |= {"smooth": video_options.smoothing(options), "render": video_options.rendering(options)}
    names_of = tuple(name.strip() for name in options.names.split(",")) if options.names else ()
    chosen = PredictOptions(**given, limits=limits, to=tuple(formats), names=names_of)
    with workers_for(config.compute) as workers:
        summary = predict_images(
            run, sources, out, chosen,
            config=config, workers=workers, device=options.device, progress=options.console.show,
        )  # fmt: skip
    return Result(str(summary), {**summary.figures(), "formats": list(chosen.formats)})


def _formats(text: str) -> list[str]:
    """Return the formats of a word of `--to`, `csv` or `csv,coco`; an override that follows it stays as it is."""
    if _OVERRIDE.match(text):
        return [text]
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        choices = ", ".join(FORMATS)
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no format; choose from {choices}, after OUT")
    return names


def _split_formats(words: Iterable[list[str]]) -> tuple[list[str], list[str]]:
    """Return the overrides and the formats among the words of `--to`, which takes the words that follow it."""
    flat = [word for of_one in words for word in of_one]
    return [word for word in flat if word not in FORMATS], [word for word in flat if word in FORMATS]


def _names(lines: Iterable[str]) -> list[str]:
    """Return the names of files, one a line. Raises DataError if there are none."""
    names = [name for name in (line.rstrip("\r\n") for line in lines) if name]
    if not names:
        raise DataError("-: there are no names on standard input; give one a line")
    return names


def _split_words(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Return the sources, OUT and the overrides among the words of `kplm predict`; argparse counts overrides as sources."""
    overrides = [word for word in words if _OVERRIDE.match(word)]
    paths = [word for word in words if word not in overrides]
    if len(paths) < 2:
        raise ConfigError(
            f"predict: {' '.join(paths) or 'no path'} alone: name SOURCE, any number of them, and OUT last"
        )
    return paths[:-1], paths[-1], overrides
