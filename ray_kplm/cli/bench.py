"""Commands that measure: kplm bench chaos, quality, serve, labels and so on; speed: `bench_speed`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ray_kplm.cli import bench_speed, checks, serve
from ray_kplm.cli.console import Result, add_json, command, figures_text
from ray_kplm.cli.parser import Number
from ray_kplm.cli.suggest import STRATEGIES
from ray_kplm.errors import ConfigError
from ray_kplm.ranges import COUNTS, ROUNDS, Range

VICTIMS = ("worker", "extraction", "shard", "coordinator", "controller", "driver", "node")
"""What `kplm bench chaos` can kill."""


def add(commands: Any) -> None:
    """Declare the commands."""
    text = "Measure speed, memory and fault tolerance on this machine."
    epilog = (
        "Examples:\n"
        "  kplm bench train faces_cpu\n"
        "  kplm bench correspondence --json\n"
        "  kplm bench chaos --boundaries 10\n"
        "  kplm bench chaos --victims worker node"
    )
    parser = commands.add_parser("bench", help=text, description=text, epilog=epilog)
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    bench_speed.add(kinds)
    _add_quality(kinds)
    _add_serve(kinds)
    _add_chaos(kinds)
    _add_endurance(kinds)
    _add_predict(kinds)
    _add_suggest(kinds)
    _add_labels(kinds)


def _add_quality(kinds: Any) -> None:
    text = (
        "Compare the label-free measures of runs with their forward NME. They are computed for all finished rounds and for "
        "stage 2; the rank correlation (Spearman) says how well each measure orders them."
    )
    parser = command(kinds, "quality", _quality, text)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories on annotated datasets")
    add_json(parser, "the figures")


def _add_serve(kinds: Any) -> None:
    text = (
        "Ask a server on this machine for landmarks, by many clients at once. Requests a second and latency stand beside what "
        "the detector does alone on the same files; one image of four is broken in a part of the requests, and must be refused "
        "without harm to the others."
    )
    epilog = "Example:\n  kplm bench serve runs/mine --requests 10000 --json"
    parser = command(kinds, "serve", _serve, text, epilog)
    serve.add_detector(parser)
    parser.add_argument(
        "--requests", type=Number(int, Range(40, 10**7)), default=10_000, help="requests with one image"
    )
    parser.add_argument("--clients", type=Number(int, Range(1, 1000)), default=64, help="connections at the same time")
    parser.add_argument("--side", type=Number(int, Range(16, 4096)), default=256, help="side of the images, pixels")
    parser.add_argument("--port", type=Number(int, Range(1, 65_535)), default=8000, help="port to serve at meanwhile")
    serve.add_options(parser)
    add_json(parser, "the figures")


def _add_chaos(kinds: Any) -> None:
    text = (
        "Kill processes of small runs and check that the result is the same. By default driver and workers of one round are "
        "killed at every boundary, that is before each file that they publish or delete. With --victims or --together "
        "processes are killed on a cluster of three nodes on this machine, at three moments each. The runs must end with the "
        "same bits as one without faults; some ten seconds a boundary, a minute or two a moment."
    )
    parser = command(kinds, "chaos", _chaos, text)
    parser.add_argument(
        "--boundaries",
        type=Number(int, Range(1, 10_000)),
        metavar="N",
        help="only so many boundaries, evenly spread; default: all of the round",
    )
    parser.add_argument(
        "--victims", nargs="+", choices=VICTIMS, metavar="VICTIM", help=f"kill these on a cluster: {', '.join(VICTIMS)}"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="three runs on the cluster, in each of which all victims are killed; default: a run for each",
    )
    add_json(parser, "the figures")


def _add_endurance(kinds: Any) -> None:
    text = "Run many short rounds in one process. Memory, open files, processes and the object store must not grow."
    parser = command(kinds, "endurance", _endurance, text)
    parser.add_argument("--rounds", type=Number(int, ROUNDS), default=200, help="rounds after the warm-up")
    parser.add_argument(
        "--rounds-per-fit", type=Number(int, ROUNDS), default=20, help="rounds by the same training workers"
    )
    add_json(parser, "the figures")


def _add_predict(kinds: Any) -> None:
    text = (
        "Time a detector on one core: one image, and batches of 32. It is timed from JPEG files to landmarks, by PyTorch and "
        "as ONNX, beside the network's forward pass alone."
    )
    parser = command(
        kinds,
        "predict",
        _predict,
        text,
        "Example:\n  kplm bench predict runs/mine --json   # predict_share: at least 0.7",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory whose dataset can be read")
    parser.add_argument("--onnx", metavar="FILE", help="an ONNX file of its detector; default: one is exported")
    add_json(parser, "the figures")


def _add_suggest(kinds: Any) -> None:
    text = (
        "Compare the ways in which `kplm suggest` chooses images. The true labels are given to the chosen images, points "
        "are fitted on them as by `kplm adapt`, and all test images are scored (forward NME); some minutes a run."
    )
    epilog = "Example:\n  kplm bench suggest runs/faces runs/cattle --json"
    parser = command(kinds, "suggest", _suggest, text, epilog)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories on annotated datasets")
    parser.add_argument(
        "--repetitions", type=Number(int, Range(1, 1000)), default=10, help="repetitions, each on 80 %%"
    )
    parser.add_argument("--by", nargs="+", choices=STRATEGIES, default=STRATEGIES, help="strategies, beside random")
    add_json(parser, "the figures")


def _add_labels(kinds: Any) -> None:
    text = (
        "Measure the test error of annotated points by the number of labelled images: by the map from a run's landmarks that "
        "kplm adapt fits, by a new head on its frozen backbone, and by the same network trained from scratch on the same "
        "images. What the folder of the results has already is not measured again, so the command can be interrupted. "
        "Trainings take minutes to hours each; --seeds 3 0 0 leaves them out."
    )
    epilog = (
        "Examples:\n"
        "  kplm bench labels runs/faces --seeds 10 0 0                 # the map from the landmarks: seconds to minutes\n"
        "  kplm bench labels runs/faces --groups five.yaml --out curve --json\n"
        "five.yaml maps names of points to annotated points, of which it takes the mean; * stands for any text:\n"
        "  eye_left: eyeL_*\n"
        "  nose: [nose_3]"
    )
    parser = command(kinds, "labels", _labels, text, epilog)
    parser.add_argument("run", metavar="RUN", help="a run directory on an annotated dataset")
    parser.add_argument(
        "--counts",
        type=Number(int, COUNTS),
        nargs="+",
        default=[5, 10, 20, 50, 100, 300],
        help="numbers of labelled images; default: 5 10 20 50 100 300",
    )
    parser.add_argument(
        "--seeds",
        type=Number(int, Range(0, 1000)),
        nargs=3,
        default=[3, 1, 1],
        metavar=("MAP", "HEAD", "SCRATCH"),
        help="draws of images for the map, the head and the network from scratch; 0 leaves one out; default: 3 1 1",
    )
    parser.add_argument(
        "--groups", metavar="FILE", help="a YAML file of points that are means of annotated ones, scored too"
    )
    parser.add_argument(
        "--iterations", type=Number(int, COUNTS), help="of a training from scratch; default: those of the run's stage 2"
    )
    parser.add_argument("--head-iterations", type=Number(int, COUNTS), default=600, help="of the training of a head")
    parser.add_argument("--out", metavar="FOLDER", help="folder of labels.json and labels.png; default: RUN/bench")
    add_json(parser, "the figures")


def _quality(options: argparse.Namespace) -> Result:
    for run in options.runs:
        checks.finished_run(run)
    with options.console.loading():
        from ray_kplm.bench.label_free import bench, lines

    figures = bench(options.runs, options.console.show)
    return Result("\n".join(lines(figures)), figures)


def _serve(options: argparse.Namespace) -> Result:
    serve.check(options.detector, "127.0.0.1", options.port)
    server = serve.chosen(options)
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # for the detector alone as for the server; read when PyTorch is imported
    with options.console.loading():
        from ray_kplm.bench.serve import Load, bench, is_passed, lines

    load = Load(options.requests, options.clients, options.side)
    figures = bench(options.detector, server, load, options.port, options.console.show)
    return Result("\n".join(lines(figures)), figures, exit_code=0 if is_passed(figures) else 1)


def _chaos(options: argparse.Namespace) -> Result:
    if options.victims or options.together:
        return _chaos_on_a_cluster(options)
    with options.console.loading():
        from ray_kplm.bench.boundary_faults import bench, lines

    figures = bench(options.boundaries, options.console.show)
    return Result("\n".join(lines(figures)), figures, exit_code=0 if figures["same"] else 1)


def _chaos_on_a_cluster(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.fault_injection import bench, lines

    if options.boundaries is not None:
        raise ConfigError("--boundaries: is for kills without --victims and --together; leave one of them out")
    figures = bench(options.victims or VICTIMS, options.together, options.console.show)
    return Result("\n".join(lines(figures)), figures, exit_code=0 if figures["same"] else 1)


def _endurance(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.endurance import bench

    figures = bench(options.rounds, options.rounds_per_fit, options.console.show)
    return Result(figures_text(figures), figures)


def _predict(options: argparse.Namespace) -> Result:
    run = checks.finished_run(options.run)
    checks.dataset_of(run)
    with options.console.loading():
        from ray_kplm.bench.predict import bench, lines

    figures = bench(run, options.onnx, options.console.show)
    return Result("\n".join(lines(figures)), figures)


def _suggest(options: argparse.Namespace) -> Result:
    for run in options.runs:
        checks.dataset_of(checks.finished_run(run))
    with options.console.loading():
        from ray_kplm.bench.suggest import bench, lines

    figures = bench(options.runs, options.repetitions, options.console.show, options.by)
    return Result("\n".join(lines(figures)), figures)


def _labels(options: argparse.Namespace) -> Result:
    run = checks.finished_run(options.run)
    dataset = checks.dataset_of(run)
    groups = None
    if options.groups:
        from ray_kplm.bench.point_groups import read_groups

        groups = read_groups(options.groups, dataset)
    with options.console.loading():
        from ray_kplm.bench.label_results import METHODS, lines
        from ray_kplm.bench.labels import Sizes, bench
        from ray_kplm.storage import Folder

    seeds = dict(zip(METHODS, options.seeds, strict=True))
    sizes = Sizes(tuple(sorted(set(options.counts))), seeds, options.iterations, options.head_iterations)
    out = Folder.at(options.out) if options.out else run.folder / "bench"
    figures = bench(run, sizes, groups, out, options.console.show)
    return Result("\n".join([*lines(figures), f"written: {out}/labels.json and labels.png"]), figures)
