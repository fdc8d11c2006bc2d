"""The command that writes a detector as one file: export."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any, Literal

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import add_points
from ray_kplm.detectors.file_metadata import SUFFIXES


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Write a detector as one file that runs without the run, and as ONNX without PyTorch. Pictures of any size, uint8 "
        "(N, H, W, 3), go in, landmarks in their pixels come out. The file is compared with the detector on images of the "
        "dataset, and not written if a landmark differs by more than 0.1 px."
    )
    epilog = (
        "Examples:\n"
        "  kplm export runs/mine mine.onnx\n"
        "  kplm export runs/mine mine.onnx --precision fp16   # half the size\n"
        "  kplm export runs/mine mine.pt2 --format torch\n"
        "  kplm export runs/mine nose5.onnx --points nose5    # the points of `kplm adapt --name nose5`\n"
        "  kplm predict mine.onnx photos landmarks --csv"
    )
    parser = command(commands, "export", _export, text, epilog)
    parser.add_argument("run", metavar="RUN", help="the run directory, or the folder of an exported detector")
    parser.add_argument("file", metavar="FILE", help="the file to write: a path or URI that ends in .onnx, or in .pt2")
    add_points(parser)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16"], help="of the network in the file")
    parser.add_argument(
        "--format", choices=list(SUFFIXES),
        help="onnx, or torch for a program of torch.export; default: by the end of the file's name",
    )  # fmt: skip
    add_json(parser, "what was written and compared")


def _export(options: argparse.Namespace) -> Result:
    form: Literal["onnx", "torch"] = options.format or (
        "torch" if options.file.lower().endswith(SUFFIXES["torch"]) else "onnx"
    )
    checks.file_name(options.file, SUFFIXES[form])
    run = checks.detector(options.run)
    checks.points(run, options.points)
    checks.target_file(options.file, options.run, "FILE")
    with options.console.loading("PyTorch"):
        from ray_kplm.detectors.export_file import export_file
    report = export_file(run, options.file, form, options.precision, options.points)
    return Result(str(report), asdict(report))
