"""From images to a landmark detector: demo, synth, ingest, train, fork."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Lists
from ray_kplm.errors import DataError


def add(commands: Any) -> None:
    """Declare them."""
    _add_demo(commands)
    _add_synth(commands)
    _add_ingest(commands)
    _add_train(commands)
    _add_fork(commands)


def _add_demo(commands: Any) -> None:
    text = "Render a synthetic object category, discover its landmarks, score them, and picture what was found."
    parser = command(commands, "demo", _demo, text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the ready configuration demo")
    parser.add_argument("--folder", default="runs/demo", help="where images, dataset and run go")
    parser.add_argument("--images", type=int, default=1000, help="images to render")
    add_json(parser, "the scores")


def _add_synth(commands: Any) -> None:
    parser = command(commands, "synth", _synth, "Render N annotated images of the synthetic category, ready to ingest.")
    parser.add_argument("images", type=int, metavar="N", help="images to render, test split included")
    parser.add_argument("folder", metavar="DIR", help="where train.parquet, test.parquet and dataset.json go")
    parser.add_argument("--size", type=int, default=96, help="side of an image, pixels")
    parser.add_argument("--test-share", type=float, default=0.2, help="share of images in the test split")
    parser.add_argument("--seed", type=int, default=0, help="the same seed renders the same images")
    parser.add_argument(
        "--mark", action="store_true", help="the same mark in a corner of every image, to try method.drop_static on"
    )


def _add_ingest(commands: Any) -> None:
    from ray_kplm.datasets.registry import AUTO, FORMATS

    text = "Make a dataset of a folder of images, of Parquet files with an image column, or of a published data set."
    parser = command(commands, "ingest", _ingest, text)
    width = max(map(len, FORMATS))
    known = "\n".join(f"  {name:{width}}  {form.text}" for name, form in FORMATS.items())
    parser.formatter_class = Lists
    parser.epilog = (
        f"Published data sets (--format), where SOURCE is the folder they were unpacked to:\n{known}\n\n"
        "They come with the splits, boxes and landmarks of their authors and of the thesis; a file that is missing is\n"
        "named, with where it is to be had. Typical: kplm ingest downloads/CUB data/cub --format cub"
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder (train.parquet and test.parquet in it are its splits) or a file"
    )
    parser.add_argument("dataset", metavar="DATASET", help="where the dataset goes: a new folder or URI")
    parser.add_argument(
        "--format",
        choices=[AUTO, *FORMATS],
        default=AUTO,
        metavar="NAME",
        help="a published data set in its authors' layout, of those below; auto: Parquet files or a folder of images",
    )
    parser.add_argument(
        "--boxes", help="CSV or Parquet: image, x0, y0, x1, y1 in source pixels; each box becomes a crop"
    )
    parser.add_argument("--landmarks", help="Parquet: image, landmarks (L x 2, source pixels); for evaluation only")
    parser.add_argument("--sequences", help="CSV or Parquet: image, sequence, frame; images that are frames of videos")
    parser.add_argument("--margin", type=float, default=0.2, help="around a box, share of its longer side")
    parser.add_argument("--size", type=int, default=256, help="longest side of a stored image, pixels")
    parser.add_argument(
        "--test-share", type=float, default=0.1, help="share of images set aside, where no splits are given"
    )
    parser.add_argument("--part-images", type=int, default=512, help="images a part: the unit of retry and of memory")
    parser.add_argument("--min-side", type=int, default=32, help="smaller images are rejected, pixels")
    parser.add_argument("--seed", type=int, default=0, help="decides the splits")
    parser.add_argument("--workers", type=int, default=None, help="parts at a time; default: one for each CPU")


def _add_train(commands: Any) -> None:
    text = "Discover landmarks: from dataset to landmark detector. The same command again continues an interrupted run."
    parser = command(commands, "train", _train, text)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a name that `kplm configs` lists")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR method.landmarks=20 ...")


def _add_fork(commands: Any) -> None:
    text = "Start a new run from the finished steps of another one that a changed configuration leaves as they are."
    parser = command(commands, "fork", _fork, text)
    parser.add_argument("run", metavar="OLD", help="the run directory to take from")
    parser.add_argument("target", metavar="NEW", help="the new run directory")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="what changes, for example stage2.iterations=8000"
    )


def _demo(options: argparse.Namespace) -> Result:
    from ray_kplm.analysis.evaluate import evaluate, show
    from ray_kplm.config import load_config
    from ray_kplm.datasets.dataset import IngestOptions
    from ray_kplm.evaluation.tables import lines
    from ray_kplm.imaging.synthetic.category import write_category
    from ray_kplm.pipeline import discover
    from ray_kplm.ready_configs import path_of
    from ray_kplm.runtime.session import session
    from ray_kplm.steps.ingest import ingest
    from ray_kplm.tracking import add_evaluation, add_picture

    started = time.monotonic()
    root = Path(options.folder)
    config = load_config(path_of("demo"), [f"dataset={root / 'dataset'}", f"run={root / 'run'}", *options.overrides])
    if not _is_rendered(root / "images", options.images):
        options.console.inform(f"rendering {options.images} images to {root / 'images'}")
        write_category(root / "images", options.images, size=config.network.image_size, seed=config.seed)
    with session(config.compute):
        options.console.inform(str(ingest(root / "images", root / "dataset", IngestOptions(part_images=128))))
        run, _ = discover(config, options.console.run_progress)
        metrics = evaluate(run, options.console.show)
        picture = show(run)
    add_evaluation(run, metrics)
    add_picture(run, picture, "test.png")
    metrics["seconds"] = time.monotonic() - started
    pictures = f"picture: {run.folder}/evaluation/test.png   curves: {run.folder}/evaluation/curves.png"
    return Result("\n".join([*lines(metrics), pictures]), metrics)


def _is_rendered(folder: Path, images: int) -> bool:
    """Whether the demo's images are there; another number of them is an error."""
    if not (folder / "dataset.json").exists():
        return False
    meta = json.loads((folder / "dataset.json").read_text())
    there = meta["n_train"] + meta["n_test"]
    if there != images:
        raise DataError(f"{folder}: holds {there} images where --images is {images}; choose another --folder")
    return True


def _synth(options: argparse.Namespace) -> Result:
    from ray_kplm.imaging.synthetic.category import write_category

    names = ("test_share", "size", "seed", "mark")
    write_category(options.folder, options.images, **{name: getattr(options, name) for name in names})
    return Result(f"{options.folder}: {options.images} images; next: kplm ingest {options.folder} DATASET")


def _ingest(options: argparse.Namespace) -> Result:
    from ray_kplm.config import ComputeConfig
    from ray_kplm.datasets.dataset import IngestOptions
    from ray_kplm.runtime.session import session
    from ray_kplm.steps.ingest import ingest

    names = (
        "format",
        "boxes",
        "landmarks",
        "sequences",
        "margin",
        "size",
        "test_share",
        "part_images",
        "min_side",
        "seed",
        "workers",
    )
    chosen = IngestOptions(**{name: getattr(options, name) for name in names})
    with session(ComputeConfig()):
        summary = ingest(
            options.source, options.dataset, chosen,
            progress=options.console.show,
        )  # fmt: skip
    return Result(str(summary))


def _train(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config
    from ray_kplm.pipeline import discover

    started = time.monotonic()
    config = load_config(options.config, options.overrides)
    run, worked = discover(config, options.console.run_progress)
    state = f"done in {time.monotonic() - started:.0f} s" if worked else "was finished before, nothing to do"
    return Result(f"{run.folder}: {state}; next: kplm evaluate {run.folder}, kplm show {run.folder}")


def _fork(options: argparse.Namespace) -> Result:
    from ray_kplm.config import from_dict, with_overrides
    from ray_kplm.run import Run
    from ray_kplm.steps.fork import fork

    source = Run.open(options.run)
    config = from_dict(with_overrides(source.config.to_dict(), [*options.overrides, f"run={options.target}"]))
    taken = fork(source, config)
    state = f"took over {', '.join(taken) or 'nothing'}"
    return Result(f"{options.target}: {state}; next: kplm train {options.target}/config.yaml")
