"""`kplm ...`: thin. Every command calls one function that Python users can call too.

stdout has the result alone (with --json: one JSON object), stderr all else. Exit codes: 0 done, 1 unexpected error, 2 usage and
configuration, 3 data, 4 storage and run directory, 5 Ray cluster, 6 collapse, 130 interrupted; see `EXIT_CODES`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence

from ray_kplm.cli import bench, configs, results, search, steps, train
from ray_kplm.cli.console import OUTPUT_CLOSED, Console, Result, command, emit
from ray_kplm.cli.parser import Lists, Parser, Version
from ray_kplm.errors import KplmError

INTERRUPTED = 130
"""128 + SIGINT."""
EXIT_CODES = {
    0: "done",
    1: "an unexpected error, with its traceback; or a check that failed (kplm bench chaos)",
    2: "usage or configuration",
    3: "data: images, annotation, datasets",
    4: "storage, the MLflow store, or a run directory that does not fit",
    5: "the Ray cluster",
    6: "collapse: too few images or points are left to learn from",
    INTERRUPTED: "interrupted (Ctrl-C); the same command continues",
    OUTPUT_CLOSED: "what read the output has gone away (SIGPIPE)",
    143: "terminated (SIGTERM); the same command continues",
}
"""Status of a command -> why it ended. Errors carry theirs: `KplmError.exit_code`."""
_SHELLS = ("bash", "zsh", "fish")
_log = logging.getLogger("ray_kplm.cli")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; errors that the user can mend are one line on stderr."""
    options = build_parser().parse_args(arguments)
    verbosity = getattr(options, "verbosity", None)
    options.console = Console(quiet=verbosity == "quiet")
    logging.basicConfig()
    logging.getLogger().setLevel(logging.INFO if verbosity == "verbose" else logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # whatever libraries print there
            result: Result = options.call(options)
    except KplmError as error:
        _log.info("where it came from:", exc_info=error)
        print(f"kplm: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("kplm: stopped; the same command continues where this one was", file=sys.stderr)
        return INTERRUPTED
    emit(result.as_json() if getattr(options, "json", False) else result.text)
    return result.exit_code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `kplm` with all its commands."""
    codes = "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_CODES.items())
    parser = Parser(
        prog="kplm",
        description="Discover landmarks in unlabelled images of one object category.",
        formatter_class=Lists,
        epilog="Typical:\n  kplm ingest PHOTOS DATA\n  kplm train faces_cpu dataset=DATA run=runs/first\n"
        f"  kplm evaluate runs/first\n  kplm show runs/first\n\nExit codes:\n{codes}",
    )
    parser.add_argument("--version", action=Version, help="print the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for kind in (train, steps, results, search, bench, configs):
        kind.add(commands)
    text = 'Print a script that completes kplm\'s commands and options in a shell, for example: eval "$(kplm completion bash)"'
    command(commands, "completion", _completion, text).add_argument("shell", choices=_SHELLS, help="which one")
    return parser


def _completion(options: argparse.Namespace) -> Result:
    import shtab

    parser = build_parser()
    _complete_paths(parser, {"CONFIG": shtab.FILE, "SOURCE": shtab.FILE} | dict.fromkeys(_FOLDERS, shtab.DIRECTORY))
    return Result(shtab.complete(parser, options.shell).rstrip())


_FOLDERS = ("RUN", "DATASET", "DIR", "OLD", "NEW", "OUT")
"""Arguments that are folders, as their commands' help names them."""


def _complete_paths(parser: argparse.ArgumentParser, kinds: dict[str, object]) -> None:
    """Tell shtab which arguments, by what help calls them, are paths."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                _complete_paths(below, kinds)
        elif action.metavar in kinds:
            action.complete = kinds[str(action.metavar)]  # type: ignore[attr-defined]
