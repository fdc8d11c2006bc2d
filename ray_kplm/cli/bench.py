"""Commands that measure: kplm bench correspondence, train, evaluation, rounds, quality and so on."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ray_kplm.cli import checks, serve
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
    _add_correspondence(kinds)
    _add_train(kinds)
    _add_views(kinds)
    _add_evaluation(kinds)
    _add_rounds(kinds)
    _add_extraction(kinds)
    _add_quality(kinds)
    _add_serve(kinds)
    _add_chaos(kinds)
    _add_endurance(kinds)
    _add_predict(kinds)
    _add_suggest(kinds)
    _add_labels(kinds)
    _add_feed(kinds)
    _add_device_views(kinds)
    _add_step(kinds)
    _add_scale(kinds)


def _add_correspondence(kinds: Any) -> None:
    text = (
        "Time K-means, the duplicate filter and the shards. K-means is compared with Faiss and with a matrix product of the "
        "same size, the memory of a shard with its budget."
    )
    parser = command(kinds, "correspondence", _correspondence, text)
    parser.add_argument("--points", type=Number(int, COUNTS), default=300_000, help="number of descriptors")
    parser.add_argument("--dim", type=Number(int, Range(1, 65_536)), default=256, help="width of a descriptor")
    parser.add_argument("--clusters", type=Number(int, Range(2, 32_767)), default=100, help="number of centroids")
    parser.add_argument("--iterations", type=Number(int, COUNTS), default=10, help="iterations of a fit")
    parser.add_argument(
        "--memory", action="store_true", help="also 1, 4 and 16 million descriptors (minutes, 3 GB of disk)"
    )
    parser.add_argument("--run", metavar="RUN", help="also the share of clustering in the time of this run's rounds")
    add_json(parser, "the figures")


def _add_train(kinds: Any) -> None:
    text = (
        "Time the training loop of stage 1. It is compared with the same steps on batches in memory, the data pipeline alone, "
        "and two workers."
    )
    parser = command(kinds, "train", _train, text)
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="a YAML file or the name of a ready one; default: faces_cpu"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it")
    parser.add_argument(
        "--iterations", type=Number(int, COUNTS), default=200, help="iterations of each training that is timed"
    )
    add_json(parser, "the figures")


def _add_views(kinds: Any) -> None:
    text = (
        "Time the making of training views on one core, in CPU time, from stored JPEG images to views: at 128 and 256 px, with "
        "and without the smooth warp, and with pasted objects. They are compared with the same views made by albumentations, "
        "transform by transform (views_ratio_to_reference); decode_share says how much of the time is left to decoding. A GPU "
        "needs as many cores as its views/s are a multiple of views_per_s_per_core."
    )
    epilog = "Examples:\n  kplm bench views\n  kplm bench views thesis_faces augment.noise_share=0 --json"
    parser = command(kinds, "views", _views, text, epilog)
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="a YAML file or the name of a ready one; default: faces_cpu"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it")
    parser.add_argument(
        "--images", type=Number(int, Range(8, 10_000)), default=128, help="rendered images of each size"
    )
    add_json(parser, "the figures")


def _add_evaluation(kinds: Any) -> None:
    text = "Time an evaluation of random landmarks: forward and backward NME alone, and all figures."
    parser = command(kinds, "evaluation", _evaluation, text)
    parser.add_argument(
        "--images",
        type=Number(int, Range(2, 10**7)),
        default=2_500,
        help="number of test images, and of training images",
    )
    parser.add_argument("--points", type=Number(int, Range(1, 10_000)), default=68, help="number of annotated points")
    parser.add_argument(
        "--landmarks",
        type=Number(int, Range(1, 10_000)),
        default=30,
        help="number of discovered landmarks, at most that of points",
    )
    add_json(parser, "the figures")


def _add_rounds(kinds: Any) -> None:
    text = (
        "Measure what a round reads of datasets of growing size, and what some iterations of stage 2 request of an object "
        "store with 30 ms a request, and hold in memory. Neither must grow with the dataset."
    )
    parser = command(kinds, "rounds", _rounds, text)
    parser.add_argument(
        "--sizes",
        type=Number(int, COUNTS),
        nargs="+",
        default=[4_000, 40_000, 400_000],
        help="images in the datasets",
    )
    parser.add_argument("--images", type=Number(int, COUNTS), default=2_000, help="images of a round")
    parser.add_argument(
        "--stage2-sizes",
        type=Number(int, Range(500, 100_000_000)),
        nargs="+",
        default=[100_000, 1_000_000, 10_000_000],
        help="images in the datasets of stage 2, multiples of 500",
    )
    parser.add_argument(
        "--stage2-iterations", type=Number(int, COUNTS), default=200, help="iterations, of 32 views each"
    )
    add_json(parser, "the figures")


def _add_extraction(kinds: Any) -> None:
    text = (
        "Measure the stages of an extraction. Decoding, a network that sleeps as long as that takes, and writing are timed "
        "alone and together: an overlap of 1 is the time of the longest alone. Features are written and read as Arrow and as "
        "Parquet, and a clustering's reads of them are counted. No run is needed; a minute or two."
    )
    parser = command(kinds, "extraction", _extraction, text, "Example:\n  kplm bench extraction --json")
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="a YAML file or the name of a ready one; default: faces_cpu"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it")
    parser.add_argument("--images", type=Number(int, COUNTS), default=4096, help="images for the network that sleeps")
    parser.add_argument("--computed", type=Number(int, COUNTS), default=128, help="images for the configured network")
    parser.add_argument(
        "--keypoints", type=Number(int, COUNTS), default=60_000, help="keypoints to write and to cluster"
    )
    add_json(parser, "the figures")


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


def _add_feed(kinds: Any) -> None:
    text = (
        "Measure whether views reach a training worker as fast as tasks make them. The tasks sleep for as long as they would "
        "take, so no cores are needed: feed_share is what arrives of what they could make, less than 0.95 is a fault."
    )
    parser = command(kinds, "feed", _feed, text, "Example:\n  kplm bench feed --tasks 10 --json   # some 20 seconds")
    parser.add_argument("--tasks", type=Number(int, Range(1, 1000)), default=10, help="Ray Data tasks at a time")
    parser.add_argument("--size", type=Number(int, Range(8, 4096)), default=256, help="side of a view, pixels")
    parser.add_argument("--batch", type=Number(int, Range(1, 65_536)), default=32, help="views in a batch")
    parser.add_argument(
        "--rate", type=Number(float, Range(1, 1e6)), default=128.0, help="views per second that a task makes"
    )
    parser.add_argument("--for", dest="duration", type=Number(float, Range(1, 3600)), default=15.0, help="seconds")
    add_json(parser, "the figures")


def _add_device_views(kinds: Any) -> None:
    text = (
        "Time the views that a GPU makes for its own training, from decoded pictures in memory to the network's input. Beside "
        "them stand the views that a core makes, and how much of their time vanishes behind a training step."
    )
    epilog = "Example:\n  kplm bench device-views --device cuda --batch 256 --json"
    parser = command(kinds, "device-views", _device_views, text, epilog)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 and so on")
    parser.add_argument("--size", type=Number(int, Range(8, 4096)), default=256, help="side of a view, pixels")
    parser.add_argument("--batch", type=Number(int, Range(1, 65_536)), default=32, help="views in a batch")
    parser.add_argument("--batches", type=Number(int, COUNTS), default=20, help="batches that are timed")
    add_json(parser, "the figures")


def _add_step(kinds: Any) -> None:
    text = (
        "Time the training step of stage 1 on a device, with random images that are there already: views/s by batch size, "
        "number format and with or without compilation (compute.compile). peak_share is what the network's operations are of "
        "those of a large matrix product of the same type, measured on the same device; the goal on a GPU is 0.35. Without "
        "options it takes a minute: on CUDA with 256 px, width 256, batches of 16 to 256, elsewhere with a small network. A "
        "first compiled step takes a minute more for each size."
    )
    epilog = (
        "Examples:\n"
        "  kplm bench step --json\n"
        "  kplm bench step --device cuda --batches 64 --precisions bf16 --compile no yes\n"
        "  kplm bench step --device cpu --size 128 --width 64 --batches 8 16"
    )
    parser = command(kinds, "step", _step, text, epilog)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 and so on")
    parser.add_argument(
        "--size", type=Number(int, Range(128, 1024)), help="side of a view, pixels; default: 256, CPU: 128"
    )
    parser.add_argument("--width", type=Number(int, Range(16, 1024)), help="of the network; default: 256, CPU: 32")
    parser.add_argument(
        "--batches",
        type=Number(int, Range(2, 65_536)),
        nargs="+",
        help="views of a step, even; default: 16 32 64 256, CPU: 8",
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"), help="number formats: fp32 bf16"
    )
    parser.add_argument(
        "--compile", nargs="+", choices=("no", "yes"), help="compilation: no yes; default: both on CUDA, no elsewhere"
    )
    add_json(parser, "the figures")


def _add_scale(kinds: Any) -> None:
    text = (
        "Calculate how long a run would take on 1 to 64 GPUs, step by step, what it would cost, and where more GPUs no "
        "longer help. What a core does and what a start costs is measured on this machine, in some two minutes; what a GPU, "
        "a network and S3 do is assumed, and the tables say which is which. Your own measurements come in a file: "
        "--save-rates writes one, change it, and give it to --rates. --validate runs short rounds on one and two CPU workers "
        "and compares them with the model; run it on an idle machine."
    )
    epilog = (
        "Examples:\n"
        "  kplm bench scale                                    # thesis_faces, as it is\n"
        "  kplm bench scale mine.yaml stage1.batch_size=64 --gpus 1 8 64 --images 1000000 --storage s3\n"
        "  kplm bench scale --save-rates rates.json; kplm bench scale --rates rates.json --price 2.1 --markdown\n"
        "  kplm bench scale --rates rates.json --validate --json   # validation_ratio_*: 0.75 to 1.25"
    )
    parser = command(kinds, "scale", _scale, text, epilog)
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="a YAML file or the name of a ready one; default: thesis_faces"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it")
    count = Number(int, COUNTS)
    parser.add_argument("--gpus", type=count, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="numbers of GPUs")
    parser.add_argument(
        "--images",
        type=count,
        nargs="+",
        default=[10**4, 10**5, 10**6, 10**7, 10**8],
        help="numbers of training images",
    )
    parser.add_argument(
        "--storage",
        nargs="+",
        choices=("disk", "s3"),
        default=("disk", "s3"),
        help="where dataset and run are: disk s3",
    )
    parser.add_argument("--cores", type=Number(int, Range(2, 1024)), default=16, help="CPU cores beside each GPU")
    parser.add_argument("--node-gpus", type=Number(int, Range(1, 1024)), default=8, help="GPUs of a node")
    parser.add_argument(
        "--price", type=Number(float, Range(0, 10**6)), default=3.5, help="of a GPU with its cores for an hour"
    )
    parser.add_argument("--rates", metavar="FILE", help="a JSON file of rates; default: they are measured")
    parser.add_argument("--save-rates", metavar="FILE", help="write the rates there")
    parser.add_argument("--validate", action="store_true", help="also predict and run real rounds (minutes)")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    add_json(parser, "the figures")


def _correspondence(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.correspondence import bench
        from ray_kplm.bench.kmeans_speed import Sizes

    sizes = Sizes(options.points, options.dim, options.clusters, options.iterations)
    figures = bench(sizes, memory=options.memory, run=options.run, progress=options.console.show)
    return Result(figures_text(figures), figures)


def _train(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.train import bench
        from ray_kplm.config import load_config
        from ray_kplm.ready_configs import path_of

    config = load_config(options.config or path_of("faces_cpu"), options.overrides)
    figures = bench(config, options.iterations, options.console.show)
    return Result(figures_text(figures), figures)


def _views(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.views import bench, lines
        from ray_kplm.config import load_config
        from ray_kplm.ready_configs import path_of

    config = load_config(options.config or path_of("faces_cpu"), options.overrides)
    figures = bench(config.augment, options.images, options.console.show)
    return Result("\n".join(lines(figures)), figures)


def _evaluation(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.evaluation import bench

    figures = bench(options.images, options.points, options.landmarks, options.console.show)
    return Result(figures_text(figures), figures)


def _rounds(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.rounds import bench, lines

    figures = bench(
        options.sizes, options.images, options.stage2_sizes, options.stage2_iterations, options.console.show
    )
    return Result("\n".join(lines(figures)), figures)


def _extraction(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.extraction import Sizes, bench, lines
        from ray_kplm.config import load_config
        from ray_kplm.ready_configs import path_of

    config = load_config(options.config or path_of("faces_cpu"), options.overrides)
    figures = bench(config, Sizes(options.images, options.computed, options.keypoints), options.console.show)
    return Result("\n".join(lines(figures)), figures)


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


def _feed(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.feed import bench

    o = options
    figures = bench(o.tasks, o.size, o.batch, o.rate, o.duration, o.console.show)
    return Result(figures_text(figures), figures)


def _device_views(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.device_views import bench

    figures = bench(options.device, options.size, options.batch, options.batches, options.console.show)
    return Result(figures_text(figures), figures)


def _step(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.step import bench, lines, sizes_for

    o = options
    sizes = sizes_for(o.device, o.size, o.width, o.batches, o.precisions, o.compile)
    figures = bench(o.device, sizes, o.console.show)
    return Result("\n".join(lines(figures)), figures)


def _scale(options: argparse.Namespace) -> Result:
    with options.console.loading():
        from ray_kplm.bench.scale import Question, bench, lines, markdown
        from ray_kplm.config import load_config
        from ray_kplm.ready_configs import path_of

    question = Question(
        load_config(options.config or path_of("thesis_faces"), options.overrides),
        gpus=tuple(sorted(options.gpus)),
        images=tuple(sorted(options.images)),
        storages=tuple(options.storage),
        cores=options.cores,
        node_gpus=options.node_gpus,
        price=options.price,
    )
    figures = bench(
        question,
        options.console.show,
        rates_file=options.rates,
        save_rates=options.save_rates,
        validated=options.validate,
    )
    return Result("\n".join((markdown if options.markdown else lines)(figures)), figures)
