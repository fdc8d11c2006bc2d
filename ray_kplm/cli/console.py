"""What all commands share: how they are declared, and what they print where.

The result of a command is printed to stdout, once, at its end. Everything before that is printed to stderr, by `Console`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_kplm import notes
from ray_kplm.redaction import redact
from ray_kplm.report.text_table import align_values

if TYPE_CHECKING:
    from ray_kplm.progress import ProgressDisplay

OUTPUT_CLOSED = 141
"""128 + SIGPIPE: the exit code of a program whose reader, for example `head`, has ended."""


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    text: str
    """For a person."""
    figures: dict[str, Any] | None = None
    """For `--json`, of the commands that have this option."""
    exit_code: int = 0

    def as_json(self) -> str:
        """Return the figures as one JSON object on one line, without those of single images, which are in files."""
        kept = {name: value for name, value in (self.figures or {}).items() if name != "per_image"}
        return json.dumps(kept, allow_nan=False)


class Console:
    """Prints progress and notes to stderr, and nothing when quiet. Warnings and errors are printed without it."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = _Discard() if quiet else sys.stderr
        notes.is_quiet = quiet

    def inform(self, text: str) -> None:
        """Print a line."""
        print(redact(text), file=self._out, flush=True)

    def show(self, share: float, text: str) -> None:
        """Show the share of the work that is done, a `ray_kplm.progress.ProgressCallback`: on a terminal in one moving line."""
        is_terminal = self._out.isatty()
        start, end = ("\r\x1b[K", "\n" if share >= 1 else "") if is_terminal else ("", "\n")
        print(redact(f"{start}[{share:4.0%}] {text}"), end=end, file=self._out, flush=True)

    def loading(self, libraries: str = "PyTorch and Ray") -> AbstractContextManager[None]:
        """Return a context for the import of the libraries that take seconds."""
        return notes.waiting(f"kplm: loading {libraries} ...")

    def run_progress(self, weights: dict[str, float]) -> ProgressDisplay:
        """Return the progress display of a run; see `ray_kplm.progress` for the weights."""
        from ray_kplm.progress import ProgressDisplay

        return ProgressDisplay(weights, self._out)


class _Discard(io.StringIO):
    """A text stream that drops what is written."""

    def write(self, text: str) -> int:
        return len(text)


def emit(text: str) -> None:
    """Print to stdout, without credentials. If its reader has ended, exit silently with the code of SIGPIPE."""
    try:
        print(redact(text), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter flushes at its exit
        raise SystemExit(OUTPUT_CLOSED) from None


def command(
    commands: Any, name: str, call: Callable[[argparse.Namespace], Result], text: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """Declare a command and return its parser.

    Args:
        commands: the subparsers to add it to.
        name: of the command.
        call: carries it out.
        text: its description; the first sentence stands in the list of commands.
        epilog: what `--help` prints below the options, such as examples.
    """
    sentence, _, _ = text.partition(". ")
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=f"{sentence.rstrip('.')}.", description=text, epilog=epilog
    )
    parser.set_defaults(call=call)
    return parser


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option `--json` to a command whose result has figures."""
    parser.add_argument(
        "--json", action="store_true", help=f"print {what} as one JSON object, and nothing else, on stdout"
    )


def figures_text(figures: Mapping[str, Any]) -> str:
    """Return figures as text, one on a line."""
    return "\n".join(align_values(figures))
