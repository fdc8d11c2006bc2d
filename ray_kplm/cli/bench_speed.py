"""Commands that measure the speed of the parts of a run: kplm bench views, extraction, correspondence, scale and so on."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli.console import Result, add_json, command, figures_text
from ray_kplm.cli.parser import Number
from ray_kplm.ranges import COUNTS, Range


def add(kinds: Any) -> None:
    """Declare the kinds of `kplm bench`."""
    _add_correspondence(kinds)
    _add_train(kinds)
    _add_step(kinds)
    _add_views(kinds)
    _add_device_views(kinds)
    _add_feed(kinds)
    _add_extraction(kinds)
    _add_rounds(kinds)
    _add_evaluation(kinds)
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
