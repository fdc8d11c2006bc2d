"""Points of a user's own from labelled images: `kplm adapt`."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.ranges import MARGINS
from ray_kplm.report.text_table import NO_VALUE, align, cell

_SHOWN = 8
"""Reasons of what was rejected that are printed; all are in the result of --json and in adapt.json."""


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Fit points of your own to the landmarks of a finished run, by about 20 labelled images. Nothing is trained: a map "
        "from landmarks to points is fitted, and chosen by cross-validation. It prints the error of each point on images "
        "that it was not fitted on, and what the next 10 labels would gain. --points NAME then chooses the points in "
        "predict, export, serve and push."
    )
    epilog = (
        "LABELS is a file of COCO keypoints, Label Studio's JSON export, DeepLabCut's labels or a CSV; images are looked for\n"
        "beside it, or below --images. Points need not be labelled in every image.\n\n"
        "Examples:\n"
        "  kplm suggest runs/mine --count 20 tolabel                # images worth a label, with predictions to correct\n"
        "  kplm adapt runs/mine tolabel/coco.json --name nose5      # the points nose5\n"
        "  kplm predict runs/mine photos out --points nose5 --to csv\n"
        "  kplm adapt runs/mine more.json --name nose5              # again with more labels; the earlier set is kept\n"
        "  kplm adapt runs/mine --list"
    )
    parser = command(commands, "adapt", _adapt, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument("labels", metavar="LABELS", nargs="*", help="the file of labels")
    parser.add_argument("--name", metavar="NAME", help="what the set of points is called")
    parser.add_argument("--images", metavar="FOLDER", help="where the labelled images are; default: beside LABELS")
    parser.add_argument(
        "--boxes",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="crop each object by its box in LABELS, as kplm predict --boxes does; default: if the error is lower then",
    )
    parser.add_argument(
        "--margin", type=Number(float, MARGINS), default=0.2, help="margin around a box, share of its longer side"
    )
    parser.add_argument(
        "--head", action="store_true",
        help="also train a head on the frozen backbone of the run (minutes), and take it if it is better on labels that it did "
        "not see, for which it needs some hundred; its points have no probabilities",
    )  # fmt: skip
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or mps; default: a GPU if there is one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list the sets of points of the run")
    what.add_argument("--remove", metavar="NAME", help="remove a set of points, with its earlier versions")
    add_json(parser, "errors of the points, the learning curve and what was rejected")


def _adapt(options: argparse.Namespace) -> Result:
    from ray_kplm.points.stored import check_point_set_name

    run = _run(options.run)
    if options.list or options.remove:
        if options.labels or options.name:
            given = " ".join([*options.labels, *(["--name"] if options.name else [])])
            raise ConfigError(f"{given}: does not go with --{'list' if options.list else 'remove'}; leave it out")
        return _listed(run) if options.list else _removed(options, run)
    if len(options.labels) != 1:
        raise ConfigError(
            f"{' '.join(options.labels) or 'adapt'}: name one file of labels: kplm adapt RUN LABELS --name NAME"
        )
    if not options.name:
        raise ConfigError("--name: give the set of points a name, for example --name nose5")
    check_point_set_name(options.name)
    checks.source(options.labels[0], options.images)
    checks.target(options.run, "RUN")
    from ray_kplm.labels.reading import read_labels

    labels = read_labels(options.labels[0], options.images)
    with options.console.loading("PyTorch"):
        from ray_kplm.analysis.adapt import AdaptOptions, adapt
    chosen = AdaptOptions(options.name, options.boxes, options.margin, options.device, head=options.head)
    done = adapt(run, labels, chosen, options.console.show)
    facts = {**done.facts, "is_new": done.is_new}
    return Result("\n".join(_lines(facts, options)), facts)


def _run(uri: str) -> Any:
    """Return a finished run. Raises RunError if it is none, and says so of an exported detector."""
    from ray_kplm.detectors.loading import file_form
    from ray_kplm.detectors.pretrained_config import is_pretrained
    from ray_kplm.storage import Folder

    folder = Folder.at(uri)
    if file_form(uri) or folder.is_file(checks.EXPORTED) or is_pretrained(folder):
        raise RunError(f"{uri}: is an exported detector; adapt its run, and export that again with --points NAME")
    return checks.finished_run(uri)


def _listed(run: Any) -> Result:
    from ray_kplm.analysis.point_set_list import list_point_sets

    rows = list_point_sets(run)
    cells = [
        [row["name"], str(row["points"]), row["origin"], cell(row["objects"], "{}"), cell(row["error"], "{:.2f} %")]
        for row in rows
    ]
    table = align([["name", "points", "from", "labels", "error"], *cells], left=(0, 2))
    return Result("\n".join(table if rows else [f"{run.folder}: has no points but its landmarks"]), {"sets": rows})


def _removed(options: argparse.Namespace, run: Any) -> Result:
    from ray_kplm.analysis.point_set_list import remove_point_set

    remove_point_set(run, options.remove)
    return Result(f"removed {options.remove}", {"removed": options.remove})


def _lines(facts: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """Return the result for a person."""
    name = facts["name"]
    if not facts["is_new"]:
        return [
            f"{name}: nothing to do, as it was fitted to the same labels before; version {facts['version']}, cross-validated "
            f"error {facts['error']:.2f} % of the object's size",
            _next(facts, options.run),
        ]
    return [
        *_table(facts),
        *_how(facts),
        *_head(facts),
        *_learning(facts),
        *_warnings(facts),
        _next(facts, options.run),
    ]


def _next(facts: dict[str, Any], run: str) -> str:
    boxes = " --boxes BOXES" if facts["boxes"] else ""
    return f"next: kplm predict {run} IMAGES OUT --points {facts['name']}{boxes}"


def _table(facts: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["name"],
            str(row["labels"]),
            f"{row['error_pixels']:.2f} px",
            f"{row['error']:.2f} %",
            cell(row["found"], "{:.0%}"),
            row["partner"] or NO_VALUE,
        ]
        for row in facts["table"]
    ]
    heading = ["point", "labels", "error", "of the object", "found", "partner"]
    last = ["all", str(facts["objects"]), f"{facts['error_pixels']:.2f} px", f"{facts['error']:.2f} %"]
    return align([heading, *rows, last], left=(0, 5))


def _how(facts: dict[str, Any]) -> list[str]:
    gain, error, recipe = facts["gain"], facts["gain_error"], facts["recipe"]
    compared = (
        "the thesis' ridge regression, as nothing is better"
        if gain == 0
        else f"{gain:.2f} +- {error:.2f} % better than the thesis' ridge regression ({facts['thesis_error']:.2f} %)"
    )
    alike = facts["objects"] - facts["groups"]
    together = f", {alike} of them with the same or nearly the same image" if alike else ""
    boxes = "cropped by their boxes" if facts["boxes"] else "as whole images"
    return [
        f"errors are cross-validated: {facts['objects']} labelled objects {boxes}{together}",
        f"map: {recipe}; {compared}" if gain else f"map: {compared}",
    ]


def _head(facts: dict[str, Any]) -> list[str]:
    head = facts.get("head")
    if head is None:
        return []
    taken = "taken" if head["is_taken"] else "not better by more than the error of the difference: the map is taken"
    return [
        f"head: {head['error']:.2f} % on {head['images']} objects held out, the map {head['map_error']:.2f} %: {taken}"
    ]


def _learning(facts: dict[str, Any]) -> list[str]:
    forecast = facts["forecast"]
    if forecast is None:
        return ["the next 10 labels: too few different images are labelled yet to tell what they would gain"]
    gain = forecast["now"] - forecast["then"]
    measured = ", ".join(f"{row['labels']}: {row['error']:.2f} %" for row in facts["curve"])
    return [
        f"errors by number of labels: {measured}",
        f"the next {forecast['labels']} labels would gain about {gain:.2f} % of the object's size ({forecast['now']:.2f} -> "
        f"{forecast['then']:.2f}, {forecast['low']:.2f} to {forecast['high']:.2f})",
    ]


def _warnings(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{a} and {b}: are hardly told apart; if they are not very near each other, look whether labels are swapped"
        for a, b in facts["confused"]
    ]
    by_reason: dict[str, list[str]] = {}
    for image, reason in facts["rejected"]:
        by_reason.setdefault(reason, []).append(image)
    for reason, images in list(by_reason.items())[:_SHOWN]:
        others = f" and {len(images) - 1} more" if len(images) > 1 else ""
        lines.append(f"not used: {images[0]}{others}: {reason.removesuffix(': not used')}")
    if len(by_reason) > _SHOWN:
        lines.append(f"not used: for {len(by_reason) - _SHOWN} more reasons, in adapt.json")
    return [*lines, *facts["left_out"], *facts["notes"]]
