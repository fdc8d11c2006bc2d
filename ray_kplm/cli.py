"""`kplm ...`: thin. Every command calls one function that Python users can call too."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray_kplm.errors import ConfigError, DataError, KplmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that the user can mend are one line on stderr and exit code 2."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    try:
        options.call(options)
    except KplmError as error:
        print(f"kplm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kplm: stopped; the same command continues where this one was", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kplm",
        description="Discover landmarks in unlabelled images of one object category.",
        epilog="Typical: kplm ingest PHOTOS DATA; kplm train jobs/configs/faces_cpu.yaml dataset=DATA run=runs/first; "
        "kplm evaluate runs/first; kplm show runs/first",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_synth(commands)
    _add_ingest(commands)
    _add_train(commands)
    _add_fork(commands)
    _add_evaluate(commands)
    _add_quality(commands)
    _add_predict(commands)
    _add_show(commands)
    _add_report(commands)
    _add_template(commands)
    _add_ablate(commands)
    _add_sweep(commands)
    _add_bench(commands)
    return parser


def _command(
    commands: Any, name: str, call: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.set_defaults(call=call)
    return parser


def _add_demo(commands: Any) -> None:
    text = "Render a synthetic object category, discover its landmarks, score them, and picture what was found."
    parser = _command(commands, "demo", _demo, text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to jobs/configs/demo.yaml")
    parser.add_argument("--folder", default="runs/demo", help="where images, dataset and run go")
    parser.add_argument("--images", type=int, default=1000, help="images to render")
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object in the last line")


def _add_synth(commands: Any) -> None:
    parser = _command(
        commands, "synth", _synth, "Render N annotated images of the synthetic category, ready to ingest."
    )
    parser.add_argument("images", type=int, metavar="N", help="images to render, test split included")
    parser.add_argument("folder", metavar="DIR", help="where train.parquet, test.parquet and dataset.json go")
    parser.add_argument("--size", type=int, default=96, help="side of an image, pixels")
    parser.add_argument("--test-share", type=float, default=0.2, help="share of images in the test split")
    parser.add_argument("--seed", type=int, default=0, help="the same seed renders the same images")
    parser.add_argument(
        "--mark", action="store_true", help="the same mark in a corner of every image, to try method.drop_static on"
    )


class _Lists(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of what stands below the options."""


def _add_ingest(commands: Any) -> None:
    from ray_kplm.datasets.formats import AUTO, FORMATS

    text = "Make a dataset of a folder of images, of Parquet files with an image column, or of a published data set."
    parser = _command(commands, "ingest", _ingest, text)
    width = max(map(len, FORMATS))
    known = "\n".join(f"  {name:{width}}  {form.text}" for name, form in FORMATS.items())
    parser.formatter_class = _Lists
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
    parser = _command(commands, "train", _train, text)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file; ready ones are in jobs/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR method.landmarks=20 ...")


def _add_fork(commands: Any) -> None:
    text = "Start a new run from the finished steps of another one that a changed configuration leaves as they are."
    parser = _command(commands, "fork", _fork, text)
    parser.add_argument("run", metavar="OLD", help="the run directory to take from")
    parser.add_argument("target", metavar="NEW", help="the new run directory")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="what changes, for example stage2.iterations=8000"
    )


def _add_evaluate(commands: Any) -> None:
    text = (
        "Score a finished run against a dataset's annotation: forward and backward NME, raw accuracy, PCK, detection; by a "
        "protocol of the field also with the thesis' figures beside ours."
    )
    parser = _command(commands, "evaluate", _evaluate, text)
    parser.add_argument("run", metavar="RUN", nargs="?", help="the run directory")
    parser.add_argument("--model", metavar="RUN", help="the same, to be read with --data: --model RUN --data OTHER")
    parser.add_argument("--data", metavar="DATASET", help="score on this dataset; default: the run's own")
    parser.add_argument(
        "--protocol", metavar="NAME",
        help="mafl, aflw, ls3d, catheads, bbcpose, human36m, pennaction, deepfashion or cub: their points and normaliser",
    )  # fmt: skip
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="COLUMN=EDGES",
        help="errors by ranges of a column of numbers, as yaw=0,30,60,90; '|yaw|=...' by its absolute value; without edges by "
        "each of its values",
    )  # fmt: skip
    parser.add_argument(
        "--visible-only", action=argparse.BooleanOptionalAction, default=None,
        help="leave out points that are annotated though hidden; default: as the protocol does, else they are scored",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object in the last line")


def _add_quality(commands: Any) -> None:
    text = (
        "How good landmarks are, without any annotation: whether they follow known warps and the mirror image, how often they "
        "are detected, how sharp their peaks are, how they move; and what to be wary of."
    )
    parser = _command(commands, "quality", _quality, text)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "--stage", default="stage2", help="stage2, or the number of a finished round (0: the warm-up), by its clusters"
    )
    parser.add_argument("--images", type=int, default=256, help="training images looked at, a seeded sample")
    parser.add_argument("--json", action="store_true", help="print the measures as one JSON object in the last line")


def _add_predict(commands: Any) -> None:
    text = (
        "Landmarks of new images by a finished run, in the images' own pixels: OUT/part-*.parquet (image_id, xy, confidence) "
        "and OUT/rejected.parquet. The same command again continues an interrupted prediction."
    )
    parser = _command(commands, "predict", _predict, text)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument("source", metavar="SOURCE", help="a folder of images, a .parquet file, or a dataset")
    parser.add_argument("out", metavar="OUT", help="where the landmarks go: a new folder or URI")
    parser.add_argument("overrides", nargs="*", metavar="compute.key=value", help="compute.gpus_per_worker=0 ...")
    parser.add_argument("--boxes", help="CSV or Parquet: image, x0, y0, x1, y1; each box holds an object")
    parser.add_argument("--margin", type=float, default=0.2, help="around a box, as the dataset was ingested with")
    parser.add_argument("--split", choices=["train", "test"], help="images of which split of a dataset; default: all")
    parser.add_argument("--part-images", type=int, default=512, help="images a part: the unit of retry and of memory")
    parser.add_argument(
        "--csv", action="store_true", help="also OUT/landmarks.csv: image_id, landmark, x, y, confidence"
    )
    parser.add_argument("--coco", action="store_true", help="also OUT/coco.json: COCO keypoints")


def _add_show(commands: Any) -> None:
    parser = _command(commands, "show", _show, "Draw a contact sheet of images with the landmarks of a finished run.")
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument("--out", help="PNG to write; default: RUN/evaluation/SPLIT.png")
    parser.add_argument("--split", default="test", choices=["test", "train"], help="images of which split")
    parser.add_argument("--count", type=int, default=48, help="images on the sheet")


def _add_report(commands: Any) -> None:
    text = (
        "Write one HTML page about a finished run: what was found, how good it is and what to mind, a gallery, a card for each "
        "landmark, and how training went. Measures what was not measured before; opens without a network."
    )
    parser = _command(commands, "report", _report, text)
    parser.add_argument("run", metavar="RUN", help="the run directory; the page is RUN/report/index.html")
    parser.add_argument("--images", type=int, default=500, help="images in the gallery, at most")


def _add_template(commands: Any) -> None:
    text = (
        "Draw the numbered points of an image of a `method.kind=template` run, or of the template it has. To take another one: "
        "kplm fork RUN NEW template.image=IMAGE_ID"
    )
    parser = _command(commands, "template", _template, text)
    parser.add_argument("run", metavar="RUN", help="the run directory; its rounds must be finished")
    parser.add_argument("image_id", metavar="IMAGE_ID", nargs="?", help="a training image; default: the run's template")
    parser.add_argument("--out", help="PNG to write; default: RUN/template/IMAGE_ID.png")


def _add_ablate(commands: Any) -> None:
    text = (
        "Runs that differ in one value each, scored, the thesis' figures beside ours. The same command again continues."
    )
    parser = _command(commands, "ablate", _ablate, text)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file; the runs go below its run directory")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR ...")
    parser.add_argument(
        "--over", nargs="+", required=True, metavar="AXIS",
        help="what varies, all combinations: kind, stages, negatives, correspondence, clusters, keypoints, flip, flip_at_test, "
        "norm, noise, warp, or a path of the configuration with values, as method.landmarks=10,20",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each combination is run with each seed")
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side")
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON object in the last line")


_SWEEP_EXAMPLES = """
What is searched: any path of the configuration (ray_kplm/config.py has them all), with
  A,B,C                              a list                            stage1.batch_size=8,16,32
  uniform:LOW:HIGH                   numbers, both ends included       augment.warp=uniform:0:0.08
  loguniform:LOW:HIGH                the same by their logarithm       stage1.learning_rate=loguniform:1e-4:2e-3
  randint:LOW:HIGH, lograndint:...   whole numbers                     method.clusters=lograndint:30:300
or a YAML file of such: `stage1.batch_size: [8, 16, 32]`, `stage1.learning_rate: loguniform:1e-4:2e-3`.

Examples:
  All nine combinations, one after the other or side by side as there is room:
    kplm sweep jobs/configs/faces_cpu.yaml dataset=data/mine run=runs/sweep \\
      --over stage1.batch_size=8,16,32 method.clusters=50,100,200
  40 trials that learn from each other (pip install "ray-kplm[sweep]"), weak ones stopped after a round or more:
    kplm sweep CONFIG dataset=data/mine run=runs/sweep --search tpe --samples 40 --asha \\
      --over stage1.learning_rate=loguniform:1e-4:2e-3 stage1.batch_size=8,16,32,64 method.clusters=randint:50:250
  The best one, trained longer:
    kplm train runs/sweep/best.yaml run=runs/long stage2.iterations=50000

The same command again continues: finished and stopped trials stay, interrupted ones go on in their run directories; a larger
--samples adds trials. Look at RUN/index.html at any time. The objective is the forward NME where the dataset has annotated test
images, else a score that needs no annotation (kplm bench quality). Lower is better; every trial reports it after every round.
"""


def _add_sweep(commands: Any) -> None:
    text = "Search the configuration that finds the best landmarks: many runs, scored, side by side as there is room."
    parser = _command(commands, "sweep", _sweep, text)
    parser.formatter_class = _SweepHelp
    parser.epilog = _SWEEP_EXAMPLES
    parser.add_argument("config", metavar="CONFIG", help="a YAML file: what all trials have in common")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR (the sweep's folder) ..."
    )
    parser.add_argument("--over", nargs="+", required=True, metavar="PATH=WHAT", help="what is searched, see below")
    parser.add_argument(
        "--search", choices=["grid", "random", "tpe"],
        help="all combinations, draws, or Optuna's tree-structured Parzen estimator; by default a grid where all are lists, "
        "else random",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=20, help="trials in all, of random and tpe search")
    parser.add_argument(
        "--at-once", type=int, help="trials side by side; by default as many as the cluster has CPUs and GPUs for now"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the search; that of the runs is the configuration's seed"
    )
    parser.add_argument(
        "--objective", choices=["auto", "forward_nme", "label_free"], default="auto", help="what is minimised"
    )
    parser.add_argument(
        "--asha", action="store_true", help="stop weak trials early: asynchronous successive halving over the rounds"
    )
    parser.add_argument("--grace-rounds", type=int, default=1, help="with --asha: rounds before trials are compared")
    parser.add_argument(
        "--reduction", type=float, default=3.0, help="with --asha: the best 1/REDUCTION go on each time"
    )
    parser.add_argument("--json", action="store_true", help="print best and trials as one JSON object in the last line")


class _SweepHelp(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults beside the options that have one, and the examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, False) else action.help


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="Measure this machine's speed and memory; ratios, not promises.")
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    text = (
        "K-means, duplicate filter and shards: against Faiss, against a matrix product, and against the memory budget."
    )
    parser = _command(kinds, "correspondence", _bench_correspondence, text)
    parser.add_argument("--points", type=int, default=300_000, help="descriptors")
    parser.add_argument("--dim", type=int, default=256, help="numbers in a descriptor")
    parser.add_argument("--clusters", type=int, default=100, help="centroids")
    parser.add_argument("--iterations", type=int, default=10, help="iterations of a fit")
    parser.add_argument(
        "--memory", action="store_true", help="also 1, 4 and 16 million descriptors (minutes, 3 GB of disk)"
    )
    parser.add_argument("--run", help="also the share of clustering in the rounds of this run")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    text = "Stage 1's training loop against the same steps on batches in memory, the data pipeline alone, and a second worker."
    parser = _command(kinds, "train", _bench_train, text)
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file; default: jobs/configs/faces_cpu.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it")
    parser.add_argument("--iterations", type=int, default=200, help="of each training that is timed")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    text = "Processor seconds of forward and backward NME, and of all figures of an evaluation, on made-up landmarks."
    parser = _command(kinds, "evaluation", _bench_evaluation, text)
    parser.add_argument("--images", type=int, default=2_500, help="test images, and as many training images")
    parser.add_argument("--points", type=int, default=68, help="annotated points")
    parser.add_argument("--landmarks", type=int, default=30, help="discovered landmarks, at most as many as points")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    text = "What a round reads of datasets of growing size: its cost must not grow."
    parser = _command(kinds, "rounds", _bench_rounds, text)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4_000, 40_000, 400_000], help="images of the datasets")
    parser.add_argument("--images", type=int, default=2_000, help="images of a round")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    text = (
        "Label-free measures of all finished rounds and of stage 2 of some runs beside their forward NME, and how well each "
        "measure ranks them as the NME does (Spearman)."
    )
    parser = _command(kinds, "quality", _bench_quality, text)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories on annotated datasets")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")


def _synth(options: argparse.Namespace) -> None:
    from ray_kplm.imaging.synthetic import write_category

    names = ("test_share", "size", "seed", "mark")
    write_category(options.folder, options.images, **{name: getattr(options, name) for name in names})
    print(f"{options.folder}: {options.images} images; next: kplm ingest {options.folder} DATASET")


def _ingest(options: argparse.Namespace) -> None:
    from ray_kplm.config import ComputeConfig
    from ray_kplm.datasets.dataset import IngestOptions
    from ray_kplm.steps.ingest import ingest
    from ray_kplm.steps.session import session

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
        print(ingest(options.source, options.dataset, chosen, report=_count_line))


def _count_line(done: int, total: int, part: str) -> None:
    _count(done, total, "images")


def _count(done: int, total: int, what: str) -> None:
    end = "\n" if done == total or not sys.stderr.isatty() else "\r"
    print(f"[{done / total:4.0%}] {done}/{total} {what}", end=end, file=sys.stderr, flush=True)


def _train(options: argparse.Namespace) -> None:
    from ray_kplm.config import load
    from ray_kplm.pipeline import discover

    started = time.monotonic()
    config = load(options.config, options.overrides)
    run, worked = discover(config)
    state = f"done in {time.monotonic() - started:.0f} s" if worked else "was finished before, nothing to do"
    print(f"{run.folder}: {state}; next: kplm evaluate {run.folder}, kplm show {run.folder}")


def _fork(options: argparse.Namespace) -> None:
    from ray_kplm.config import from_dict, with_overrides
    from ray_kplm.run import Run
    from ray_kplm.steps.fork import fork

    source = Run.open(options.run)
    config = from_dict(with_overrides(source.config.to_dict(), [*options.overrides, f"run={options.target}"]))
    taken = fork(source, config)
    print(f"{options.target}: took over {', '.join(taken) or 'nothing'}; next: kplm train {options.target}/config.yaml")


def _evaluate(options: argparse.Namespace) -> None:
    from ray_kplm.run import Run
    from ray_kplm.steps.evaluate import Options, evaluate
    from ray_kplm.tracking import add_evaluation

    if (options.run is None) == (options.model is None):
        raise ConfigError("evaluate: name one run directory, as RUN or as --model RUN")
    run = Run.open(options.run or options.model)
    chosen = Options(options.data, options.protocol, tuple(options.by), options.visible_only)
    metrics = evaluate(run, _say, chosen)
    if not options.data:
        add_evaluation(run, metrics)
    _print_metrics(metrics)
    print(f"all scores: {metrics['folder']}/metrics.json   curves: {metrics['folder']}/curves.png")
    if options.json:
        _print_json(metrics)


def _quality(options: argparse.Namespace) -> None:
    from ray_kplm.report.tables import quality_table
    from ray_kplm.run import Run
    from ray_kplm.steps.quality import measure_quality
    from ray_kplm.steps.session import session

    run = Run.open(options.run)
    with session(run.config.compute):
        quality = measure_quality(run, options.stage, images=options.images, say=_say)
    print(quality_table(quality))
    if options.json:
        _print_json(quality)


def _predict(options: argparse.Namespace) -> None:
    from ray_kplm.config import from_dict, with_overrides
    from ray_kplm.run import Run
    from ray_kplm.steps.predict_images import PredictOptions, predict_images
    from ray_kplm.steps.session import session

    run = Run.open(options.run)
    config = from_dict(with_overrides(run.config.to_dict(), options.overrides))
    names = ("boxes", "margin", "split", "part_images", "csv", "coco")
    chosen = PredictOptions(**{name: getattr(options, name) for name in names})
    with session(config.compute):
        print(predict_images(run, options.source, options.out, chosen, config=config, progress=_count_parts))


def _count_parts(done: int, total: int) -> None:
    _count(done, total, "parts")


def _show(options: argparse.Namespace) -> None:
    from ray_kplm.run import Run
    from ray_kplm.steps.evaluate import show
    from ray_kplm.steps.session import session
    from ray_kplm.tracking import add_picture

    run = Run.open(options.run)
    with session(run.config.compute):
        png = show(run, options.split, options.count)
    add_picture(run, png, f"{options.split}.png")
    if options.out:
        Path(options.out).write_bytes(png)
    print(options.out or f"{run.folder}/evaluation/{options.split}.png")


def _report(options: argparse.Namespace) -> None:
    from ray_kplm.run import Run
    from ray_kplm.steps.report import report
    from ray_kplm.tracking import add_report

    run = Run.open(options.run)
    path = report(run, _say, options.images)
    add_report(run)
    print(path)


def _ablate(options: argparse.Namespace) -> None:
    from ray_kplm.ablation import ablate, averaged, plain
    from ray_kplm.config import load

    config = load(options.config, options.overrides)
    rows = ablate(
        config, options.over, options.seeds, at_once=options.at_once,
        told=lambda name, line: print(f"{name}: {line}", file=sys.stderr, flush=True),
    )  # fmt: skip
    table = averaged(rows)
    width = max(len(row["name"]) for row in table)
    print(f"{'':{width}}{'stage 1':>15}{'backward':>15}{'stage 2':>15}{'backward':>15}   thesis")
    for row in table:
        cells = [row[name] for name in ("stage1_forward_nme", "stage1_backward_nme", "forward_nme", "backward_nme")]
        shown = "".join(f"{'-' if c is None else f'{c[0]:.2f} ± {c[1]:.2f}':>15}" for c in cells)
        thesis = row["thesis"]
        beside = "" if thesis is None else f"{thesis.forward} / {thesis.backward or '-'} ({thesis.source})"
        print(f"{row['name']:{width}}{shown}   {beside}")
        for error in row["errors"]:
            print(f"{'':{width}}   failed: {error}")
    if options.json:
        _print_json({"rows": plain(rows)})


def _sweep(options: argparse.Namespace) -> None:
    from ray_kplm.config import load
    from ray_kplm.report.sweep import sweep_table
    from ray_kplm.search.halving import Halving
    from ray_kplm.sweep import SweepOptions, sweep

    names = ("over", "search", "samples", "at_once", "seed", "objective")
    halving = Halving(options.grace_rounds, options.reduction) if options.asha else None
    chosen = SweepOptions(**{name: getattr(options, name) for name in names}, halving=halving)
    config = load(options.config, options.overrides)
    results = sweep(config, chosen, lambda name, line: print(f"{name or 'sweep'}: {line}", file=sys.stderr, flush=True))
    print(sweep_table(results))
    print(f"picture: {config.run}/index.html   next: kplm train {config.run}/best.yaml run=NEW")
    if options.json:
        _print_json({name: results[name] for name in ("best", "trials")})


def _template(options: argparse.Namespace) -> None:
    from ray_kplm.run import Run
    from ray_kplm.steps.align import picture

    run = Run.open(options.run)
    name, png = picture(run, options.image_id)
    if options.out:
        Path(options.out).write_bytes(png)
    else:
        (run.folder / "template").write_bytes(f"{name.replace('/', '_')}.png", png)
    print(options.out or f"{run.folder}/template/{name.replace('/', '_')}.png")


def _bench_correspondence(options: argparse.Namespace) -> None:
    from ray_kplm.bench.correspondence import Sizes, bench

    sizes = Sizes(options.points, options.dim, options.clusters, options.iterations)
    found = bench(
        sizes,
        memory=options.memory,
        run=options.run,
        say=lambda text: print(f"{text} ...", file=sys.stderr, flush=True),
    )
    _print_figures(found)
    if options.json:
        _print_json(found)


def _bench_train(options: argparse.Namespace) -> None:
    from ray_kplm.bench.train import bench
    from ray_kplm.config import load

    found = bench(load(options.config or ready_config("faces_cpu"), options.overrides), options.iterations, _say)
    _print_figures(found)
    if options.json:
        _print_json(found)


def _bench_evaluation(options: argparse.Namespace) -> None:
    from ray_kplm.bench.evaluation import bench

    found = bench(options.images, options.points, options.landmarks, _say)
    _print_figures(found)
    if options.json:
        _print_json(found)


def _print_figures(found: dict[str, Any]) -> None:
    for name, value in found.items():
        print(f"{name:28}{value:>16,.3f}" if isinstance(value, float) else f"{name:28}{value!s:>16}")


def _bench_rounds(options: argparse.Namespace) -> None:
    from ray_kplm.bench.rounds import bench

    found = bench(options.sizes, options.images, _say)
    for row in found["rounds"]:
        print(
            "   ".join(
                f"{name} {value:,.3f}" if isinstance(value, float) else f"{name} {value:,}"
                for name, value in row.items()
            )
        )
    print(f"time, largest to smallest: {found['time_ratio_largest_to_smallest']:.2f}")
    if options.json:
        _print_json(found)


def _bench_quality(options: argparse.Namespace) -> None:
    from ray_kplm.bench.quality import bench, lines

    found = bench(options.runs, _say)
    print("\n".join(lines(found)))
    if options.json:
        _print_json(found)


def _say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


def _demo(options: argparse.Namespace) -> None:
    from ray_kplm.config import load
    from ray_kplm.datasets.dataset import IngestOptions
    from ray_kplm.imaging.synthetic import write_category
    from ray_kplm.pipeline import discover
    from ray_kplm.steps.evaluate import evaluate, show
    from ray_kplm.steps.ingest import ingest
    from ray_kplm.steps.session import session
    from ray_kplm.tracking import add_evaluation, add_picture

    started = time.monotonic()
    root = Path(options.folder)
    config = load(ready_config("demo"), [f"dataset={root / 'dataset'}", f"run={root / 'run'}", *options.overrides])
    if not _is_rendered(root / "images", options.images):
        print(f"rendering {options.images} images to {root / 'images'}", file=sys.stderr)
        write_category(root / "images", options.images, size=config.network.image_size, seed=config.seed)
    with session(config.compute):
        print(ingest(root / "images", root / "dataset", IngestOptions(part_images=128)), file=sys.stderr)
        run, _ = discover(config)
        metrics = evaluate(run, _say)
        picture = show(run)
    add_evaluation(run, metrics)
    add_picture(run, picture, "test.png")
    metrics["seconds"] = time.monotonic() - started
    _print_metrics(metrics)
    print(f"picture: {run.folder}/evaluation/test.png   curves: {run.folder}/evaluation/curves.png")
    if options.json:
        _print_json(metrics)


def _is_rendered(folder: Path, images: int) -> bool:
    """Whether the demo's images are there; another number of them is an error."""
    if not (folder / "dataset.json").exists():
        return False
    meta = json.loads((folder / "dataset.json").read_text())
    there = meta["n_train"] + meta["n_test"]
    if there != images:
        raise DataError(f"{folder}: holds {there} images where --images is {images}; choose another --folder")
    return True


def ready_config(name: str) -> Path:
    """A configuration of jobs/configs, in the checkout that the package was installed from."""
    return Path(__file__).parent.parent / "jobs" / "configs" / f"{name}.yaml"


def _print_metrics(metrics: dict[str, Any]) -> None:
    """The scores as a person reads them."""
    from ray_kplm.evaluation.tables import lines

    print("\n".join(lines(metrics)))


def _print_json(metrics: dict[str, Any]) -> None:
    print(json.dumps({k: v for k, v in metrics.items() if k != "per_image"}, allow_nan=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
