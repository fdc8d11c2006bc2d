"""Commands on a finished run: evaluate, quality, show, report, template."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number, add_points
from ray_kplm.errors import ConfigError
from ray_kplm.ranges import Range


def add(commands: Any) -> None:
    """Declare the commands."""
    _add_evaluate(commands)
    _add_quality(commands)
    _add_show(commands)
    _add_report(commands)
    _add_template(commands)


def _add_evaluate(commands: Any) -> None:
    text = (
        "Score a finished run against the annotation of its dataset. The scores are forward and backward NME, raw accuracy, "
        "PCK and detection; with a published protocol the thesis' figures stand beside them."
    )
    epilog = (
        "Examples:\n"
        "  kplm evaluate runs/mine\n"
        "  kplm evaluate runs/faces --protocol mafl\n"
        "  kplm evaluate --model runs/faces --data data/other --by '|yaw|=0,30,60,90' --json"
    )
    parser = command(commands, "evaluate", _evaluate, text, epilog)
    parser.add_argument("run", metavar="RUN", nargs="?", help="the run directory")
    parser.add_argument("--model", metavar="RUN", help="the same, for use with --data: --model RUN --data OTHER")
    parser.add_argument("--data", metavar="DATASET", help="the dataset to score on; default: that of the run")
    parser.add_argument(
        "--protocol", metavar="NAME",
        help="mafl, aflw, ls3d, catheads, bbcpose, human36m, pennaction, deepfashion or cub: score their points with their "
        "normaliser",
    )  # fmt: skip
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="COLUMN=EDGES",
        help="also score by ranges of a column of numbers, for example yaw=0,30,60,90, or '|yaw|=...' for its absolute value; "
        "without edges: by each of its values",
    )  # fmt: skip
    parser.add_argument(
        "--visible-only", action=argparse.BooleanOptionalAction, default=None,
        help="leave out points that are annotated as hidden; default: as the protocol does, else they are scored",
    )  # fmt: skip
    add_json(parser, "the scores")


def _add_quality(commands: Any) -> None:
    text = (
        "Measure how good landmarks are without any annotation. It is measured whether they follow known warps and the mirror "
        "image, whether they look the same in other images, whether they follow an object that is moved, how often they are "
        "detected and how much they move; bad values come with a warning."
    )
    epilog = (
        "Examples:\n"
        "  kplm quality runs/mine\n"
        "  kplm quality runs/mine --stage 3   # the clusters of round 3, also while later rounds are trained\n"
        "  kplm quality runs/mine --against runs/other   # does another seed find the same landmarks?"
    )
    parser = command(commands, "quality", _quality, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "--stage", default="stage2", help="stage2, or the number of a finished round (0: the warm-up) for its clusters"
    )
    parser.add_argument(
        "--images",
        type=Number(int, Range(1, 10**7)),
        default=256,
        help="training images to measure on, a seeded sample",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="another run, for example of another seed: how well the two predict each other's landmarks",
    )
    add_json(parser, "the measures")


def _add_show(commands: Any) -> None:
    text = (
        "Draw a contact sheet of images with the landmarks of a finished run. It is written to RUN/evaluation/SPLIT.png, or to "
        "--out alone."
    )
    epilog = "Examples:\n  kplm show runs/mine\n  kplm show runs/mine --keypoints --count 6 --out before_and_after.png"
    parser = command(commands, "show", _show, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "--out", metavar="FILE", help="write the picture here and nothing else: .png, .jpg, .webp, .tif, .pdf, ..."
    )
    parser.add_argument("--split", default="test", choices=["test", "train"], help="the split that the images are from")
    parser.add_argument("--count", type=Number(int, Range(1, 10_000)), default=48, help="number of images")
    parser.add_argument(
        "--tile", type=Number(int, Range(16, 4096)), default=160, help="side of an image in the picture, pixels"
    )
    parser.add_argument(
        "--keypoints",
        action="store_true",
        help="draw each image twice, above with the generic keypoints that the run began with (SPLIT_keypoints.png)",
    )
    add_points(parser)


def _add_report(commands: Any) -> None:
    text = (
        "Write an HTML page about a finished run. It has the quality of the landmarks with warnings, a gallery, a card for "
        "each landmark, and the course of the training. What was not measured before is measured; the page needs no network."
    )
    parser = command(
        commands, "report", _report, text, "Example:\n  kplm report runs/mine   # writes runs/mine/report/index.html"
    )
    parser.add_argument("run", metavar="RUN", help="the run directory; the page is RUN/report/index.html")
    parser.add_argument(
        "--images", type=Number(int, Range(1, 100_000)), default=500, help="number of images in the gallery at most"
    )


def _add_template(commands: Any) -> None:
    text = (
        "Draw the numbered points of an image of a `method.kind=template` run. It helps to choose a template: by default the "
        "run's template is drawn, with IMAGE_ID another image."
    )
    epilog = (
        "Examples:\n"
        "  kplm template runs/mine\n"
        "  kplm template runs/mine photos/17.jpg --out points.png\n"
        "  kplm fork runs/mine runs/other template.image=photos/17.jpg   # take this image as the template"
    )
    parser = command(commands, "template", _template, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory; its rounds must be finished")
    parser.add_argument("image_id", metavar="IMAGE_ID", nargs="?", help="a training image; default: the run's template")
    parser.add_argument(
        "--out", metavar="FILE", help="where the picture is written; default: RUN/template/IMAGE_ID.png"
    )


def _evaluate(options: argparse.Namespace) -> Result:
    if (options.run is None) == (options.model is None):
        raise ConfigError("evaluate: name one run directory, as RUN or as --model RUN")
    run = checks.finished_run(options.run or options.model)
    checks.dataset_of(run, options.data)
    with options.console.loading():
        from ray_kplm.analysis.evaluate import Options, evaluate
        from ray_kplm.report.score_table import score_lines
        from ray_kplm.tracking import add_evaluation
    chosen = Options(options.data, options.protocol, tuple(options.by), options.visible_only)
    metrics = evaluate(run, options.console.show, chosen)
    if not options.data:
        add_evaluation(run, metrics)
    files = [f"all scores: {metrics['folder']}/metrics.json", f"curves: {metrics['folder']}/curves.png"]
    return Result("\n".join([*score_lines(metrics), *files]), metrics)


def _quality(options: argparse.Namespace) -> Result:
    from ray_kplm.run import Run

    run = Run.open(options.run)
    other = Run.open(options.against) if options.against else None
    checks.dataset_of(run)
    with options.console.loading():
        from ray_kplm.analysis.label_free import measure_quality
        from ray_kplm.report.quality_table import quality_table
        from ray_kplm.runtime.session import session
    with session(run.config.compute):
        quality = measure_quality(
            run, options.stage, images=options.images, against=other, progress=options.console.show
        )
    return Result(quality_table(quality), quality)


def _show(options: argparse.Namespace) -> Result:
    from ray_kplm.analysis.picture_file import PictureFile

    file = PictureFile.at(options.out) if options.out else None
    run = checks.finished_run(options.run)
    checks.points(run, options.points)
    checks.dataset_of(run)
    checks.target_file(options.out, options.run)
    with options.console.loading():
        from ray_kplm.analysis.contact_sheet import draw_sheet, picture_name, show
        from ray_kplm.runtime.session import session
        from ray_kplm.tracking import add_picture
    chosen = {"tile": options.tile, "keypoints": options.keypoints, "points": options.points}
    if file:
        file.write(draw_sheet(run, options.split, options.count, **chosen))
        return Result(options.out)
    with session(run.config.compute):
        png = show(run, options.split, options.count, **chosen)
    name = picture_name(options.split, options.keypoints)
    add_picture(run, png, name)
    return Result(f"{run.folder}/evaluation/{name}")


def _report(options: argparse.Namespace) -> Result:
    run = checks.finished_run(options.run)
    checks.dataset_of(run)
    checks.target(options.run, "RUN")
    with options.console.loading():
        from ray_kplm.analysis.report import report
        from ray_kplm.tracking import add_report
    path = report(run, options.console.show, options.images)
    add_report(run)
    return Result(str(path))


def _template(options: argparse.Namespace) -> Result:
    from ray_kplm.analysis.picture_file import PictureFile
    from ray_kplm.run import Run

    file = PictureFile.at(options.out) if options.out else None
    run = Run.open(options.run)
    checks.dataset_of(run)
    checks.target_file(options.out, options.run)
    with options.console.loading():
        from ray_kplm.analysis.template_picture import template_picture
    image_id, png = template_picture(run, options.image_id)
    name = f"{image_id.replace('/', '_')}.png"
    if file:
        file.write(png)
    else:
        (run.folder / "template").write_bytes(name, png)
    return Result(options.out or f"{run.folder}/template/{name}")
