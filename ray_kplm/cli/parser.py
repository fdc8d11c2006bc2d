"""The argument parser of `kplm` and of its commands: argparse with suggestions, common options and one help format."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ray_kplm.cli.console import emit
from ray_kplm.ranges import FILE_BYTES, MARGINS, PIXELS, Range
from ray_kplm.redaction import redact


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options that have one, and keeps the line breaks of texts that have some."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default is not None and action.default is not False and action.default != []
        return super()._get_help_string(action) if has_default else action.help

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))


class Parser(argparse.ArgumentParser):
    """Takes -v and -q before and after a command, takes overrides among options, and suggests words for mistyped ones."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **settings})
        for flags, name, text in (
            (("-v", "--verbose"), "verbose", "also print the log of the libraries, and the traceback of errors"),
            (("-q", "--quiet"), "quiet", "print nothing but the result, warnings and errors"),
        ):
            self.add_argument(
                *flags, dest="verbosity", action="store_const", const=name, default=argparse.SUPPRESS, help=text
            )  # with a default, a command's parser would undo a flag that stands before the command

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments, and refuse unknown ones with a suggestion.

        argparse leaves the error to the main parser, which does not know the options of the command. It also takes positional
        words in one piece only, so that those after an option (`CONFIG --json key=value`) are left over; they are added here.
        """
        options, rest = super().parse_known_args(args, namespace)
        unknown = [word for word in rest if word.startswith("-") and word != "-"]  # which is standard input
        words = next((action.dest for action in self._get_positional_actions() if action.nargs == "*"), None)
        if unknown or (rest and words is None):
            known = [flag for action in self._actions for flag in action.option_strings]
            similar = dict.fromkeys(flag for word in unknown for flag in _similar(word.partition("=")[0], known))
            self.error(f"unrecognized arguments: {' '.join(unknown or rest)}{_suggestion(similar)}")
        if words is not None:
            setattr(options, words, [*getattr(options, words), *rest])
        return options, []

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, without credentials, and exit."""
        super().error(redact(message))

    def print_help(self, file: Any = None) -> None:
        """Print the help; a reader that ends early is no error."""
        if file is None:
            emit(self.format_help().rstrip())
        else:
            super().print_help(file)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            hint = _suggestion(_similar(str(value), choices)) or f"; choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint}")


class Version(argparse.Action):
    """Prints the version of the installed package. It is looked up on demand, which takes as long as all of `--help`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the version and exit."""
        import importlib.metadata

        try:
            emit(f"{parser.prog} {importlib.metadata.version('ray-kplm')}")
        except importlib.metadata.PackageNotFoundError:  # in a Ray job, whose code is not installed
            emit(f"{parser.prog}: not installed, run from {__file__}")
        parser.exit()


@dataclass(frozen=True)
class Number:
    """The type of an option that is a number in a range; other text is a usage error that says the range."""

    kind: type[int] | type[float]
    allowed: Range

    def __call__(self, text: str) -> float:
        """Return the number."""
        try:
            value = self.kind(text)
        except (ValueError, OverflowError):
            value = math.nan
        if not self.allowed.holds(value):
            word = "whole number" if self.kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text[:40]!r} must be a {word}, {self.allowed}")
        return value


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that bound a picture, `datasets.limits`, to a command that reads pictures."""
    from ray_kplm.datasets.limits import DEFAULT_LIMITS

    parser.add_argument(
        "--max-pixels",
        type=Number(int, PIXELS),
        default=DEFAULT_LIMITS.pixels,
        metavar="N",
        help=f"refuse pictures of more pixels, which take 7 bytes each; {PIXELS.high} at most",
    )
    parser.add_argument(
        "--max-bytes",
        type=Number(int, FILE_BYTES),
        default=DEFAULT_LIMITS.file_bytes,
        metavar="N",
        help="refuse larger image files",
    )


def add_objects(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which objects of which images, to a command that takes new images."""
    parser.add_argument(
        "--boxes", metavar="FILE", help="CSV or Parquet: image, x0, y0, x1, y1; each box holds an object"
    )
    parser.add_argument(
        "--margin", type=Number(float, MARGINS), default=0.2, help="margin around a box, that of `kplm ingest`"
    )
    parser.add_argument("--split", choices=["train", "test"], help="this split of a dataset; default: both")


def add_points(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses the points of a detector to a command that gives them to the user."""
    parser.add_argument(
        "--points",
        metavar="NAME",
        help="which points: a name given to `kplm adapt`, or landmarks; default: those of `kplm edit`, or the landmarks",
    )


def _similar(word: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word, list(known), n=1)


def _suggestion(words: Iterable[str]) -> str:
    return f"; did you mean {', '.join(words)}?" if words else ""
