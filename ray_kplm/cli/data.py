"""Commands that make images and datasets: synth, ingest."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli import checks, video_options
from ray_kplm.cli.console import Result, command
from ray_kplm.cli.parser import Number, add_limits
from ray_kplm.ranges import MARGINS, PART_IMAGES, PART_SHARES, PROCESSES, SEEDS, SHARES, SIDES, Range


def add(commands: Any) -> None:
    """Declare the commands."""
    _add_synth(commands)
    _add_ingest(commands)


def _add_synth(commands: Any) -> None:
    from ray_kplm.imaging.synthetic.kinds import DEFAULT, KINDS
    from ray_kplm.report.text_table import align

    kinds = "\n".join(align([[f"  {name}", text] for name, text in KINDS.items()], left=(0, 1)))
    text = "Render annotated images of a synthetic object category, ready to ingest."
    epilog = (
        "Examples:\n"
        "  kplm synth 1000 images && kplm ingest images data/creatures\n"
        "  kplm synth 1000 images --kind profile\n"
        "  kplm synth 1000 images --background-marks 10 --no-boxes\n\n"
        f"Kinds of objects (--kind):\n{kinds}"
    )
    parser = command(commands, "synth", _synth, text, epilog)
    parser.add_argument(
        "images",
        type=Number(int, Range(1, 10**7)),
        metavar="N",
        help="number of images, those of the test split included",
    )
    parser.add_argument("folder", metavar="DIR", help="where train.parquet, test.parquet and dataset.json are written")
    parser.add_argument(
        "--kind", choices=list(KINDS), default=DEFAULT, metavar="NAME", help="what to render, see below"
    )
    parser.add_argument("--size", type=Number(int, Range(16, 4096)), default=96, help="side of an image, pixels")
    parser.add_argument(
        "--test-share", type=Number(float, SHARES), default=0.2, help="share of the images in the test split"
    )
    parser.add_argument("--seed", type=Number(int, SEEDS), default=0, help="the same seed renders the same images")
    parser.add_argument(
        "--mark",
        action="store_true",
        help="draw the same mark into a corner of every image, to try method.drop_static on; implies --no-boxes",
    )
    parser.add_argument(
        "--background-marks",
        type=Number(int, Range(0, 10)),
        default=0,
        metavar="M",
        help="draw M marks, 10 at most, behind the object, each at the same place of every image; dataset.json has the places",
    )
    parser.add_argument("--no-boxes", action="store_true", help="write no boxes of the objects")


def _synth(options: argparse.Namespace) -> Result:
    checks.target(options.folder, "DIR")
    with options.console.loading():
        from ray_kplm.imaging.synthetic.category import write_category

    names = ("kind", "test_share", "size", "seed", "mark", "background_marks")
    chosen = {name: getattr(options, name) for name in names}
    write_category(options.folder, options.images, boxes=not options.no_boxes, **chosen)
    return Result(f"{options.folder}: {options.images} images; next: kplm ingest {options.folder} DATASET")


def _add_ingest(commands: Any) -> None:
    from ray_kplm.datasets.registry import FORMATS
    from ray_kplm.report.text_table import align

    formats = "\n".join(align([[f"  {name}", form.text] for name, form in FORMATS.items()], left=(0, 1)))
    text = (
        "Make a dataset of a folder of images, of videos, of Parquet files with an image column, or of a published data set. "
        "Images are "
        "cropped, scaled, split into train and test and written as Parquet; images that cannot be used are listed with "
        "the reason."
    )
    epilog = (
        "Examples:\n"
        "  kplm ingest photos data/mine\n"
        "  kplm ingest photos data/mine --boxes boxes.csv --landmarks points.parquet\n"
        "  kplm ingest clip1.mp4 clip2.mov data/mine --every 10\n"
        "  kplm ingest downloads/CUB data/cub --format cub\n\n"
        f"Published data sets (--format); SOURCE is the folder in which they were unpacked:\n{formats}\n\n"
        "Their splits, boxes and landmarks are those of their authors and of the thesis. The error about a missing file says\n"
        "where to download it."
    )
    parser = command(commands, "ingest", _ingest, text, epilog)
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="a folder of images, a .parquet file, or a folder with train.parquet and test.parquet, which are the splits; or "
        "any number of videos, image files and folders",
    )
    parser.add_argument("dataset", metavar="DATASET", help="where the dataset is written: a new folder or URI")
    video_options.add_every(parser)
    _add_ingest_options(parser)


def _add_ingest_options(parser: argparse.ArgumentParser) -> None:
    from ray_kplm.datasets.registry import AUTO, FORMATS

    parser.add_argument(
        "--format",
        choices=[AUTO, *FORMATS],
        default=AUTO,
        metavar="NAME",
        help="a published data set in its authors' layout, see below; auto: Parquet files or a folder of images",
    )
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="CSV or Parquet: image, x0, y0, x1, y1 in source pixels; each box becomes a crop",
    )
    parser.add_argument(
        "--landmarks", metavar="FILE", help="Parquet: image, landmarks (L x 2, source pixels); used for evaluation only"
    )
    parser.add_argument(
        "--sequences",
        metavar="FILE",
        help="CSV or Parquet: image, sequence, frame; for images that are frames of videos",
    )
    parser.add_argument(
        "--margin", type=Number(float, MARGINS), default=0.2, help="margin around a box, share of its longer side"
    )
    parser.add_argument(
        "--size", type=Number(int, SIDES), default=256, help="longer side of a stored image at most, pixels"
    )
    parser.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="of pictures of a folder with the same content use one, that of the test split first; default: use and count them",
    )
    parser.add_argument(
        "--test-share",
        type=Number(float, PART_SHARES),
        default=0.1,
        help="share of the test split, if SOURCE has no splits",
    )
    parser.add_argument(
        "--part-images",
        type=Number(int, PART_IMAGES),
        default=512,
        help="images in a part, which is read, processed and retried as a whole",
    )
    parser.add_argument("--min-side", type=Number(int, SIDES), default=32, help="smaller images are rejected, pixels")
    parser.add_argument("--seed", type=Number(int, SEEDS), default=0, help="seed of the splits")
    add_limits(parser)
    parser.add_argument(
        "--workers",
        type=Number(int, PROCESSES),
        default=None,
        help="parts processed at a time; default: one for each CPU",
    )


def _ingest(options: argparse.Namespace) -> Result:
    from ray_kplm.datasets.dataset import IngestOptions

    names = (
        "format", "boxes", "landmarks", "sequences", "margin", "size", "test_share", "part_images", "min_side", "seed",
        "drop_duplicates", "max_pixels", "max_bytes", "workers", "every",
    )  # fmt: skip
    chosen = IngestOptions(**{name: getattr(options, name) for name in names})
    checks.sources(options.source, options.boxes, options.landmarks, options.sequences)
    video_options.check_package(options.source if options.every is None else [*options.source, "video.mp4"])
    checks.target(options.dataset, "DATASET")
    with options.console.loading():
        from ray_kplm.config import ComputeConfig
        from ray_kplm.runtime.session import session
        from ray_kplm.steps.ingest import ingest
    with session(ComputeConfig()):
        summary = ingest(options.source, options.dataset, chosen, progress=options.console.show)
    return Result(str(summary))
