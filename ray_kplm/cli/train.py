"""Commands that make landmark detectors: demo, train, fork."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number
from ray_kplm.errors import DataError
from ray_kplm.ranges import Range


def add(commands: Any) -> None:
    """Declare the commands."""
    _add_demo(commands)
    _add_train(commands)
    _add_fork(commands)


def _add_demo(commands: Any) -> None:
    text = (
        "Show everything on a synthetic object category: render images, discover landmarks, score and draw them. Takes a few "
        "minutes on two CPU cores."
    )
    epilog = "Examples:\n  kplm demo\n  kplm demo method.landmarks=20 --folder runs/demo20"
    parser = command(commands, "demo", _demo, text, epilog)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="changes to the ready configuration `demo`, see `kplm configs demo`",
    )
    parser.add_argument("--folder", default="runs/demo", help="where images, dataset and run are written")
    parser.add_argument("--images", type=Number(int, Range(4, 10**7)), default=1000, help="number of images to render")
    add_json(parser, "the scores")


def _demo(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config
    from ray_kplm.ready_configs import path_of

    started = time.monotonic()
    root = Path(options.folder)
    config = load_config(path_of("demo"), [f"dataset={root / 'dataset'}", f"run={root / 'run'}", *options.overrides])
    checks.target(options.folder, "--folder")
    is_rendered = _is_rendered(root / "images", options.images)
    with options.console.loading():
        from ray_kplm.analysis.contact_sheet import show
        from ray_kplm.analysis.evaluate import evaluate
        from ray_kplm.datasets.dataset import IngestOptions
        from ray_kplm.imaging.synthetic.category import write_category
        from ray_kplm.pipeline import discover
        from ray_kplm.report.score_table import score_lines
        from ray_kplm.runtime.session import session
        from ray_kplm.steps.ingest import ingest
        from ray_kplm.tracking import add_evaluation, add_picture
    if not is_rendered:
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
    return Result("\n".join([*score_lines(metrics), pictures]), metrics)


def _is_rendered(folder: Path, images: int) -> bool:
    """Return whether the demo's images exist. Raises DataError if there is another number of them."""
    from ray_kplm.storage import Folder

    if not (folder / "dataset.json").exists():
        return False
    place = Folder.at(folder)
    with place.parsing("dataset.json"):
        meta = place.read_object("dataset.json")
        rendered = int(meta["n_train"]) + int(meta["n_test"])
    if rendered != images:
        raise DataError(f"{folder}: holds {rendered} images, but --images is {images}; choose another --folder")
    return True


def _add_train(commands: Any) -> None:
    text = "Discover landmarks: from a dataset to a landmark detector. The same command again continues an interrupted run."
    epilog = (
        "Examples:\n"
        "  kplm train faces_cpu dataset=data/mine run=runs/mine\n"
        "  kplm train faces_cpu dataset=data/mine run=runs/mine20 method.landmarks=20 seed=1\n"
        "  kplm train thesis_faces dataset=data/mine run=runs/gpu compute.gpus_per_worker=1 compute.workers=4\n\n"
        "`kplm configs` lists the ready configurations; docs/configuration.md has all keys."
    )
    parser = command(commands, "train", _train, text, epilog)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a name that `kplm configs` lists")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes to it: dataset=DIR run=DIR method.landmarks=20 ..."
    )


def _train(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config

    started = time.monotonic()
    config = load_config(options.config, options.overrides)
    checks.training(config)
    with options.console.loading():
        from ray_kplm.pipeline import discover
    run, worked = discover(config, options.console.run_progress)
    state = f"done in {time.monotonic() - started:.0f} s" if worked else "was finished before, nothing to do"
    return Result(f"{run.folder}: {state}; next: kplm evaluate {run.folder}, kplm show {run.folder}")


def _add_fork(commands: Any) -> None:
    text = (
        "Start a new run with the finished steps of another one. Steps that do not depend on the changed values are copied; "
        "`kplm train` does the others."
    )
    epilog = (
        "Example: train stage 2 longer\n"
        "  kplm fork runs/mine runs/longer stage2.iterations=8000 && kplm train runs/longer/config.yaml"
    )
    parser = command(commands, "fork", _fork, text, epilog)
    parser.add_argument("run", metavar="OLD", help="the run directory to copy from")
    parser.add_argument("target", metavar="NEW", help="the new run directory")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, for example stage2.iterations=8000")


def _fork(options: argparse.Namespace) -> Result:
    from ray_kplm.config import from_dict, with_overrides
    from ray_kplm.run import Run

    source = Run.open(options.run)
    config = from_dict(with_overrides(source.config.to_dict(), [*options.overrides, f"run={options.target}"]))
    checks.target(options.target, "NEW")
    checks.training(config)
    with options.console.loading():
        from ray_kplm.steps.fork import fork
    taken = fork(source, config)
    state = f"took over {', '.join(taken) or 'nothing'}"
    return Result(f"{options.target}: {state}; next: kplm train {options.target}/config.yaml")
