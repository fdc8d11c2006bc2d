"""Whether the files of a run or of a dataset are as they were written: `kplm verify`."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.errors import DamageError
from ray_kplm.report.text_table import align

_INTERVAL_S = 1.0
"""Between two lines of progress."""


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "Check that all files of a run or of a dataset are as they were written, by the SHA-256 and the size that are kept "
        "with them. Lists what is damaged or lost, and the commands that make it again. Files of older versions, which kept "
        "no hashes, are listed as not recorded."
    )
    epilog = (
        "Examples:\n"
        "  kplm verify runs/mine\n"
        "  kplm verify data/mine --json\n"
        "  kplm verify runs/mine --repair && kplm train runs/mine/config.yaml\n\n"
        f"The exit code is {DamageError.exit_code} if a file is damaged or lost, and was not removed."
    )
    parser = command(commands, "verify", _verify, text, epilog)
    parser.add_argument("folder", metavar="DIR", help="a run, a dataset, or a folder that kplm predict wrote")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="remove what is damaged and mark its steps as unfinished; what is whole is kept, and the commands that are "
        "printed make the rest again",
    )
    add_json(parser, "what was found")


def _verify(options: argparse.Namespace) -> Result:
    from ray_kplm.storage import Folder
    from ray_kplm.verify import verify

    shown = time.monotonic()

    def show(share: float, text: str) -> None:
        nonlocal shown
        if share == 1 or time.monotonic() - shown > _INTERVAL_S:
            shown = time.monotonic()
            options.console.show(share, text)

    found = verify(Folder.at(options.folder), repair=options.repair, progress=show)
    faults = len(found.faults)
    lines = align([["state", "file", "reason"], *([f.state, f.path, f.reason] for f in found.findings)], left=(0, 1, 2))
    summary = f"{found.folder}: {found.files} files ({found.size / 1e6:.1f} MB) are as they were written"
    if faults:
        summary += f", {faults} are damaged or lost{' and were removed' if found.repaired else ''}; next:"
    text = "\n".join([*(lines if found.findings else []), summary, *(f"  {c}" for c in found.commands())])
    figures = {**asdict(found), "faults": faults, "commands": found.commands()}
    return Result(text, figures, DamageError.exit_code if faults and not found.repaired else 0)
