"""The command that shares a detector: push."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command, figures_text
from ray_kplm.cli.parser import add_points
from ray_kplm.errors import ConfigError

_UNNAMED = "user/name"
"""In a card that is written before the model has a name."""


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Share the landmark detector of a finished run on a model hub. The weights (safetensors), config.json and a model card "
        "are uploaded as one commit; the card has the layout of the landmarks, their scores, warnings, and notes on data and "
        "licence. No image of the dataset leaves unless --with-images is given."
    )
    epilog = (
        "Examples:\n"
        "  kplm push runs/mine --folder shared            # write the folder alone: look at it, edit README.md\n"
        "  kplm push shared user/my-landmarks --private   # upload it as it is\n"
        "  kplm push runs/mine --folder nose5 --points nose5   # with the points of `kplm adapt --name nose5`\n"
        "  kplm push runs/mine user/my-landmarks --license cc-by-4.0 --revision v2\n\n"
        "LandmarkDetector.from_pretrained('user/my-landmarks') and kplm predict shared ... use it. The hub is the one of\n"
        "HF_ENDPOINT, the token that of HF_TOKEN or of `hf auth login`. A detector of rendered images, as that of\n"
        "`kplm demo`, is written to folders only. Needs the extra hub: pip install 'ray-kplm[hub]'"
    )
    parser = command(commands, "push", _push, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory, an exported detector, or a folder of --folder")
    parser.add_argument("name", metavar="NAME", nargs="?", help="user/name on the hub; it is created if there is none")
    parser.add_argument("--folder", metavar="DIR", help="write the folder here and upload nothing")
    add_points(parser)
    parser.add_argument("--private", action="store_true", help="create a private model; one that exists stays as it is")
    parser.add_argument("--revision", metavar="BRANCH", help="upload to this branch; default: the main branch")
    parser.add_argument(
        "--license", default="", metavar="ID",
        help="licence of the model, an identifier of the hub as cc-by-4.0; default: other, and the card says it is not stated",
    )  # fmt: skip
    parser.add_argument(
        "--with-images", action="store_true",
        help="add a contact sheet of images of the dataset to the card; they become public with the model",
    )  # fmt: skip
    parser.add_argument("--message", default="Upload landmark detector", help="message of the commit")
    add_json(parser, "address, commit, files and warnings")


def _push(options: argparse.Namespace) -> Result:
    from ray_kplm.detectors.hub import check_name, check_push
    from ray_kplm.detectors.pretrained_config import is_pretrained

    if options.name is None and options.folder is None:
        raise ConfigError("push: name the model on the hub, user/name, or a folder to write, --folder DIR")
    if options.name is not None:
        (check_name if options.folder else check_push)(options.name)
    run = checks.detector(options.run)
    is_written = is_pretrained(run.folder)
    if is_written and options.folder:
        raise ConfigError(
            f"--folder {options.folder}: {options.run} is such a folder already; copy it, or upload it as it is"
        )
    if is_written and (options.license or options.with_images or options.points):
        raise ConfigError(f"{options.run}: is uploaded as it is; edit its README.md, or write it again from the run")
    checks.points(run, options.points)
    if options.folder:
        checks.target(options.folder, "--folder")
    with options.console.loading():
        from ray_kplm.analysis.share import ShareOptions, check_shared, is_synthetic, write_model
        from ray_kplm.storage import Folder
    if not options.folder and is_synthetic(run):
        raise ConfigError(
            f"{options.run}: was trained on rendered images, and finds nothing in photographs; it is written to folders only "
            "(--folder DIR)"
        )
    chosen = ShareOptions(options.name or _UNNAMED, options.license, options.with_images, options.points)
    if options.folder:
        figures = write_model(run, Folder.at(options.folder), chosen, options.console.show)
        figures["folder"] = options.folder
    elif is_written:
        figures = check_shared(run)
        figures |= _upload(run.folder.path, options, figures["files"])
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = write_model(run, Folder.at(folder), chosen, options.console.show)
            figures |= _upload(folder, options, figures["files"])
    return Result(figures_text(_lines(figures)), figures)


def _upload(folder: str, options: argparse.Namespace, files: dict[str, int]) -> dict[str, Any]:
    from ray_kplm.detectors.hub import push

    options.console.inform(f"kplm: uploading {len(files)} files, {sum(files.values()) / 1e6:.1f} MB, to {options.name}")
    done = push(
        folder, options.name, list(files), private=options.private, revision=options.revision, message=options.message
    )
    return {"url": done.url, "commit": done.commit}


def _lines(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures as they are printed for a person."""
    plain = {name: value for name, value in figures.items() if name not in ("files", "warnings")}
    files = {name: f"{size:,} bytes" for name, size in figures["files"].items()}
    plain["names"] = ", ".join(plain["names"])
    return plain | files | {f"warning {i}": text for i, text in enumerate(figures["warnings"], 1)}
