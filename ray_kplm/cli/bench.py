"""What `kplm bench` measures."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli.console import Result, add_json, command, figures_text

VICTIMS = ("worker", "extraction", "shard", "coordinator", "controller", "driver", "node")


def add(commands: Any) -> None:
    """Declare them."""
    parser = commands.add_parser("bench", help="Measure this machine's speed and memory; ratios, not promises.")
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    text = (
        "K-means, duplicate filter and shards: against Faiss, against a matrix product, and against the memory budget."
    )
    parser = command(kinds, "correspondence", _bench_correspondence, text)
    parser.add_argument("--points", type=int, default=300_000, help="descriptors")
    parser.add_argument("--dim", type=int, default=256, help="numbers in a descriptor")
    parser.add_argument("--clusters", type=int, default=100, help="centroids")
    parser.add_argument("--iterations", type=int, default=10, help="iterations of a fit")
    parser.add_argument(
        "--memory", action="store_true", help="also 1, 4 and 16 million descriptors (minutes, 3 GB of disk)"
    )
    parser.add_argument("--run", help="also the share of clustering in the rounds of this run")
    add_json(parser, "the figures")
    text = "Stage 1's training loop against the same steps on batches in memory, the data pipeline alone, and a second worker."
    parser = command(kinds, "train", _bench_train, text)
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="a YAML file or a ready one's name; default: faces_cpu"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it")
    parser.add_argument("--iterations", type=int, default=200, help="of each training that is timed")
    add_json(parser, "the figures")
    text = "Processor seconds of forward and backward NME, and of all figures of an evaluation, on made-up landmarks."
    parser = command(kinds, "evaluation", _bench_evaluation, text)
    parser.add_argument("--images", type=int, default=2_500, help="test images, and as many training images")
    parser.add_argument("--points", type=int, default=68, help="annotated points")
    parser.add_argument("--landmarks", type=int, default=30, help="discovered landmarks, at most as many as points")
    add_json(parser, "the figures")
    text = "What a round reads of datasets of growing size: its cost must not grow."
    parser = command(kinds, "rounds", _bench_rounds, text)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4_000, 40_000, 400_000], help="images of the datasets")
    parser.add_argument("--images", type=int, default=2_000, help="images of a round")
    add_json(parser, "the figures")
    text = (
        "Label-free measures of all finished rounds and of stage 2 of some runs beside their forward NME, and how well each "
        "measure ranks them as the NME does (Spearman)."
    )
    parser = command(kinds, "quality", _bench_quality, text)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories on annotated datasets")
    add_json(parser, "the figures")
    text = (
        "Small runs on a cluster of three nodes on this machine, whose processes are killed one after the other: each must end "
        "with the bits of a run that was left alone. A minute or two each."
    )
    parser = command(kinds, "chaos", _bench_chaos, text)
    parser.add_argument(
        "--victims", nargs="+", choices=VICTIMS, metavar="VICTIM", help=f"only these of {', '.join(VICTIMS)}"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="three runs, in each of which all victims are killed; default: a run each",
    )
    add_json(parser, "the figures")
    text = "Many short rounds in one process: memory, open files, processes and the object store must not grow."
    parser = command(kinds, "endurance", _bench_endurance, text)
    parser.add_argument("--rounds", type=int, default=200, help="rounds after the warm-up")
    parser.add_argument("--rounds-per-fit", type=int, default=20, help="rounds by the same training workers")
    add_json(parser, "the figures")


def _bench_correspondence(options: argparse.Namespace) -> Result:
    from ray_kplm.bench.correspondence import Sizes, bench

    sizes = Sizes(options.points, options.dim, options.clusters, options.iterations)
    found = bench(
        sizes,
        memory=options.memory,
        run=options.run,
        progress=options.console.show,
    )
    return Result(figures_text(found), found)


def _bench_train(options: argparse.Namespace) -> Result:
    from ray_kplm.bench.train import bench
    from ray_kplm.config import load_config
    from ray_kplm.ready_configs import path_of

    found = bench(
        load_config(options.config or path_of("faces_cpu"), options.overrides), options.iterations, options.console.show
    )
    return Result(figures_text(found), found)


def _bench_evaluation(options: argparse.Namespace) -> Result:
    from ray_kplm.bench.evaluation import bench

    found = bench(options.images, options.points, options.landmarks, options.console.show)
    return Result(figures_text(found), found)


def _bench_rounds(options: argparse.Namespace) -> Result:
    from ray_kplm.bench.rounds import bench

    found = bench(options.sizes, options.images, options.console.show)
    lines = [
        "   ".join(
            f"{name} {value:,.3f}" if isinstance(value, float) else f"{name} {value:,}" for name, value in row.items()
        )
        for row in found["rounds"]
    ]
    lines.append(f"time, largest to smallest: {found['time_ratio_largest_to_smallest']:.2f}")
    return Result("\n".join(lines), found)


def _bench_quality(options: argparse.Namespace) -> Result:
    from ray_kplm.bench.label_free import bench, lines

    found = bench(options.runs, options.console.show)
    return Result("\n".join(lines(found)), found)


def _bench_chaos(options: argparse.Namespace) -> Result:
    from ray_kplm.bench.fault_injection import bench, lines

    found = bench(options.victims or VICTIMS, options.together, options.console.show)
    return Result("\n".join(lines(found)), found, exit_code=0 if found["same"] else 1)


def _bench_endurance(options: argparse.Namespace) -> Result:
    from ray_kplm.bench.endurance import bench

    found = bench(options.rounds, options.rounds_per_fit, options.console.show)
    return Result(figures_text(found), found)
