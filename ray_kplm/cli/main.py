"""The command line, `kplm`. Every command calls one function that is also available in Python.

The result of a command is printed to stdout, as one JSON object with --json; everything else goes to stderr. The exit codes are
in `EXIT_CODES`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from ray_kplm import ready_configs
from ray_kplm.cli import (
    adapt,
    bench,
    check_dataset,
    data,
    drift,
    edit,
    export,
    predict,
    process,
    results,
    search,
    serve,
    share,
    steps,
    suggest,
    train,
    verify,
    view,
)
from ray_kplm.cli.console import OUTPUT_CLOSED, Console, Result, command, emit
from ray_kplm.cli.parser import Parser, Version
from ray_kplm.errors import ConfigError, KplmError, StorageError
from ray_kplm.extras import EXTRAS, missing
from ray_kplm.redaction import RedactingFormatter, has_credentials, print_traceback, redact, way_out
from ray_kplm.report.text_table import align

INTERRUPTED = 130
"""128 + SIGINT."""
EXIT_CODES = {
    0: "done",
    1: "unexpected error, printed with its traceback; or a failed check of `kplm bench chaos` or `serve`",
    2: "usage or configuration",
    3: "data: images, annotation, datasets",
    4: "storage, the MLflow store, or a run directory that does not fit",
    5: "the Ray cluster",
    6: "collapse: too few images or points are left to train on",
    check_dataset.RISKY: "`kplm check`: the images are a risk",
    check_dataset.UNSUITABLE: "`kplm check`: the images are unsuitable",
    drift.DRIFT: "`kplm drift`: the images are not like those of the training",
    INTERRUPTED: "interrupted (Ctrl-C); the same command continues",
    OUTPUT_CLOSED: "the reader of the output has ended (SIGPIPE)",
    143: "terminated (SIGTERM); the same command continues",
}
"""Exit code -> why the command ended. Each error has its code: `KplmError.exit_code`."""
_SHELLS = ("bash", "zsh", "fish")
_FIRST_STEPS = """\
First steps:
  kplm demo                                             # everything on rendered images
  kplm ingest PHOTOS data/mine                          # a folder of images -> a dataset
  kplm train faces_cpu dataset=data/mine run=runs/mine  # a dataset -> a landmark detector
  kplm show runs/mine                                   # a picture of the landmarks
  kplm predict runs/mine PHOTOS landmarks --to csv      # landmarks of other images

`kplm COMMAND --help` has the options of a command, and examples. The same command again continues an interrupted one."""
_log = logging.getLogger("ray_kplm.cli")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Errors that the user can act on are printed as one line.

    Without arguments it takes those of the process, which ends with the command; see `ray_kplm.cli.process`.
    """
    if arguments is None:
        process.run_as_process(lambda: main(sys.argv[1:]))
    options = build_parser().parse_args(arguments)
    verbosity = getattr(options, "verbosity", None)
    options.console = Console(quiet=verbosity == "quiet")
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(logging.BASIC_FORMAT))
    logging.basicConfig(handlers=[handler])
    sys.excepthook = print_traceback
    logging.getLogger().setLevel(logging.INFO if verbosity == "verbose" else logging.WARNING)
    try:
        _refuse_credentials(options)
        with contextlib.redirect_stdout(sys.stderr):  # libraries print to stdout, which is for the result
            result: Result = options.call(options)
    except KplmError as error:
        return _failed(error, str(error), error.exit_code)
    except ModuleNotFoundError as error:  # a package of an extra, where only the core is installed
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        return _failed(error, str(missing(str(error.name))), ConfigError.exit_code)
    except OSError as error:  # of a file or of a connection
        return _failed(error, _line(error), StorageError.exit_code)
    except KeyboardInterrupt:
        if process.received() is None:  # else the process says so
            print("kplm: interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    emit(result.as_json() if getattr(options, "json", False) else result.text)
    return result.exit_code


def _refuse_credentials(options: argparse.Namespace) -> None:
    """Raise ConfigError if an argument is or holds a URI with credentials: before anything is written or sent."""
    for value in vars(options).values():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and has_credentials(word):
                key, separator, uri = word.partition("=")
                given = uri if separator and "://" not in key else word
                raise ConfigError(f"{word}: {way_out(given)}")


def _line(error: OSError) -> str:
    from ray_kplm.storage import about_space

    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{about_space(error) or error.strerror or ' '.join(str(error).split())}"


def _failed(error: Exception, line: str, code: int) -> int:
    """Print the line of an error, unless it is a consequence of a signal; return the exit code."""
    if process.received() is None:
        _log.info("traceback of the error:", exc_info=error)
        print(redact(f"kplm: {line}"), file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `kplm` with all its commands."""
    codes = "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_CODES.items())
    parser = Parser(
        prog="kplm",
        description="Discover landmarks in unlabelled images of one object category.",
        epilog=f"{_FIRST_STEPS}\n\nExit codes:\n{codes}",
    )
    parser.add_argument("--version", action=Version, help="print the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (
        train, data, check_dataset, steps, verify, results, edit, suggest, adapt, view, predict, drift, export, share, serve,
        search, bench,
    ):  # fmt: skip
        module.add(commands)
    _add_configs(commands)
    _add_schema(commands)
    _add_completion(commands)
    return parser


def _add_configs(commands: Any) -> None:
    text = (
        "List the ready configurations, or print one. Wherever a command takes a configuration file, it also takes one of "
        "these names."
    )
    epilog = (
        "Examples:\n"
        "  kplm configs\n"
        "  kplm configs faces_cpu > mine.yaml   # a copy to edit\n"
        "  kplm train faces_cpu dataset=DIR run=DIR stage1.rounds=10"
    )
    parser = command(commands, "configs", _configs, text, epilog)
    parser.add_argument("name", metavar="NAME", nargs="?", choices=ready_configs.names(), help="the one to print")


def _configs(options: argparse.Namespace) -> Result:
    if options.name:
        return Result(ready_configs.path_of(options.name).read_text(encoding="utf-8").rstrip())
    rows = [[name, ready_configs.summary(name)] for name in ready_configs.names()]
    return Result("\n".join(align(rows, left=(0, 1))))


def _add_schema(commands: Any) -> None:
    text = (
        "Print the JSON schema of the configuration, for editors. An editor with a YAML language server checks and completes a "
        "file that begins with the line: # yaml-language-server: $schema=PATH"
    )
    command(commands, "schema", _schema, text, "Example:\n  kplm schema > kplm.schema.json")


def _schema(options: argparse.Namespace) -> Result:
    from ray_kplm.config_schema import config_schema

    return Result(json.dumps(config_schema(), indent=2))


def _add_completion(commands: Any) -> None:
    text = "Print a script that completes commands, options and paths in a shell."
    parser = command(commands, "completion", _completion, text, 'Example:\n  eval "$(kplm completion bash)"')
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


def _completion(options: argparse.Namespace) -> Result:
    import shtab

    parser = build_parser()
    _complete_paths(parser, {"CONFIG": shtab.FILE, "SOURCE": shtab.FILE} | dict.fromkeys(_FOLDERS, shtab.DIRECTORY))
    return Result(shtab.complete(parser, options.shell).rstrip())


_FOLDERS = ("RUN", "DATASET", "DIR", "OLD", "NEW", "OUT")
"""Names in the help of arguments that are folders."""


def _complete_paths(parser: argparse.ArgumentParser, kinds: dict[str, object]) -> None:
    """Tell shtab which arguments are files and folders, by their names in the help."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for subparser in action.choices.values():
                _complete_paths(subparser, kinds)
        elif action.metavar in kinds:
            action.complete = kinds[str(action.metavar)]  # type: ignore[attr-defined]
