"""`kplm ...`: thin. Every command calls one function that Python users can call too."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from ray_kplm.commands import bench, discovery, results, search
from ray_kplm.errors import KplmError


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
    for kind in (discovery, results, search, bench):
        kind.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
