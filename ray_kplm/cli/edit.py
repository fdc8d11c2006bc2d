"""Names, drops and merges of landmarks: `kplm edit`."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.errors import ConfigError, RunError

_FORMAT = """\
A points file:
  points:
    - {landmark: 3, name: nose}
    - {landmarks: [4, 9], name: left_eye, partner: right_eye}   # merged: their mean
    - {landmark: 5, name: right_eye}
  edges: [[nose, left_eye], [nose, right_eye]]

A landmark that is in no point is dropped. Partners are the points that the mirror image swaps; where none is given, they are
those that the run knows. Edges and partners are names, or numbers of landmarks."""


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Name, drop and merge the landmarks of a finished run, and join them by edges. Nothing is trained again: predict, "
        "show, report, export and serve have the points of the file from then on. Without a file it shows the points that hold."
    )
    epilog = (
        f"{_FORMAT}\n\n"
        "Examples:\n"
        "  kplm edit runs/mine --suggest points.yaml   # a file to edit, from what the images say\n"
        "  kplm edit runs/mine points.yaml             # apply it, again after every change\n"
        "  kplm edit runs/mine                         # what holds now\n"
        "  kplm edit runs/mine --undo                  # back to the version before"
    )
    parser = command(commands, "edit", _edit, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="the points, YAML; with --suggest: where to write them"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--suggest",
        action="store_true",
        help="write a file to edit, with a picture of the landmarks' numbers beside it: edges between landmarks that move "
        "together, mirror partners, and which landmarks stand still or are rarely found (default: RUN-points.yaml here)",
    )
    what.add_argument("--undo", action="store_true", help="return to the version before")
    what.add_argument("--reset", action="store_true", help="return to the landmarks themselves; versions are kept")
    what.add_argument("--list", action="store_true", help="list the versions, which are the files as they were given")
    parser.add_argument("--force", action="store_true", help="let --suggest replace a file that exists")
    add_json(parser, "the points")


def _edit(options: argparse.Namespace) -> Result:
    options.file = next(iter(options.files), None)
    if len(options.files) > 1:
        raise ConfigError(f"{' '.join(options.files)}: one file at most has the points; leave the others out")
    alone = next((name for name in ("undo", "reset", "list") if getattr(options, name)), None)
    if alone and options.file:
        raise ConfigError(f"--{alone} {options.file}: --{alone} takes no file; leave one of them out")
    if options.force and not options.suggest:
        raise ConfigError("--force: belongs to --suggest; leave it out")
    run = _run(options.run)
    if options.suggest:
        return _suggest(options, run)
    from ray_kplm.analysis import edit

    if options.list:
        rows = edit.version_rows(run)
        lines = edit.version_table(rows) if rows else ["no versions: no file was applied to this run"]
        return Result("\n".join(lines), {"versions": rows})
    if options.file or alone:
        checks.target(options.run, "RUN")
    if options.file:
        now = edit.apply_file(run, options.file)
    else:
        now = {"undo": edit.undo, "reset": edit.reset, None: edit.present}[alone](run)
    return Result(str(now), now.figures())


def _run(uri: str) -> Any:
    """Return a finished run. Raises RunError if it is none, and says so of an exported detector."""
    from ray_kplm.storage import Folder

    if Folder.at(uri).is_file(checks.EXPORTED):
        raise RunError(f"{uri}: is an exported detector; edit the points of its run, and export that again")
    return checks.finished_run(uri)


def _suggest(options: argparse.Namespace, run: Any) -> Result:
    checks.dataset_of(run)
    file = options.file or f"{run.folder.name}-points.yaml"
    checks.target_file(file, options.run, "FILE")
    with options.console.loading("PyTorch"):
        from ray_kplm.analysis.edit_suggestion import check_new, picture_file, write_suggestion
    if not options.force:
        check_new(file)
    found = write_suggestion(run, file, options.console.show)
    doubts = {k: "; ".join(reasons) for k, reasons in found.doubts.items()}
    figures = {
        "file": file,
        "picture": picture_file(file),
        "images": found.images,
        "edges": [list(edge) for edge in found.edges],
        "partners": [None if partner == k else partner for k, partner in enumerate(found.partners)],
        "doubts": doubts,
        "on_one_place": [[a, b] for a, b, _ in found.on_one_place],
    }
    lines = [f"{file}: {len(found.partners)} landmarks, {len(found.edges)} edges, {len(doubts)} in doubt"]
    lines += [f"  landmark {k}: {reason}" for k, reason in doubts.items()]
    lines += [f"numbers: {picture_file(file)}", f"next: edit it, then kplm edit {options.run} {file}"]
    return Result("\n".join(lines), figures)
