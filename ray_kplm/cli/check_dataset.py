"""Whether images suit the discovery of landmarks, before any training: `kplm check`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number
from ray_kplm.ranges import Range

if TYPE_CHECKING:
    from ray_kplm.analysis.check_dataset import Check

RISKY, UNSUITABLE = 10, 11
"""Exit codes of the verdicts; suitable is 0."""
_EXAMPLES = f"""
The verdict and the exit code are
  suitable     0  no rule is broken
  risky       {RISKY}  it may work: what may go wrong, and what to do about it, is printed
  unsuitable  {UNSUITABLE}  landmarks will not be found: what to do is printed

Looked at are exact and near repeats, also of training images in the test (all images); and on a sample: size, blur and
exposure, whether there is a common object, how large it is and how many an image has, a still background, variety, and what a
mirror image is. K, M and the size of the network's input are suggested, and a few training steps of the configuration are
timed on this machine. What the rules' bounds come from is in docs/screening.md.

Examples:
  kplm check data/mine
  kplm check data/mine --html check.html        # a page with examples of what was found
  kplm check data/mine thesis_faces --json      # hours of another configuration; the figures for a program
  kplm check data/mine --no-timing || exit      # in a script: stop unless it is suitable
"""


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Check in minutes, before any training, whether images suit the discovery of landmarks. Prints a verdict with reasons "
        "and what to do, and suggests numbers to train with."
    )
    parser = command(commands, "check", _check, text, _EXAMPLES)
    parser.add_argument("dataset", metavar="DATASET", help="the dataset that `kplm ingest` made")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="CONFIG key=value",
        help="what you would train: a YAML file or the name of a ready configuration, by default faces_cpu; and changes to it",
    )
    parser.add_argument("--html", metavar="FILE", help="also write a page with examples from the dataset, FILE.html")
    parser.add_argument(
        "--images", type=Number(int, Range(4, 100_000)), default=1_000, help="training images in the sample, at most"
    )
    parser.add_argument(
        "--timing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time training steps, which takes half a minute",
    )
    add_json(parser, "verdict, findings and figures")


def _check(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config
    from ray_kplm.datasets.dataset import Dataset

    given: list[str] = options.overrides
    name = given.pop(0) if given and "=" not in given[0] else "faces_cpu"
    config = load_config(name, [*given, f"dataset={options.dataset}"])
    dataset = Dataset.open(options.dataset)
    if options.html:
        checks.file_name(options.html, ".html")
        checks.target_file(options.html, options.html, "--html")
    with options.console.loading("PyTorch"):
        from ray_kplm.analysis.check_dataset import check_dataset
        from ray_kplm.report.check_table import check_table
    check = check_dataset(dataset, config, images=options.images, timed=options.timing, progress=options.console.show)
    figures = check.figures()
    text = check_table(figures, name, options.dataset)
    if options.html:
        _write_page(check, figures, name, options)
        text += f"\npage: {options.html}"
    return Result(text, figures, (0, RISKY, UNSUITABLE)[check.level])


def _write_page(check: Check, figures: dict[str, Any], config: str, options: argparse.Namespace) -> None:
    from ray_kplm.analysis.check_examples import check_page
    from ray_kplm.storage import Folder

    at = Folder.at(options.html)
    at.parent.write_bytes(at.name, check_page(check, figures, options.dataset, config).encode())
