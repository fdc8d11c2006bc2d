"""What commands share: how they are declared, and how they speak.

What a command is for goes to stdout, once, at its end: a `Result`. All that it says on the way goes to stderr by `Console`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_kplm.progress import ProgressDisplay

OUTPUT_CLOSED = 141
"""128 + SIGPIPE: how shells see a program whose reader, as `head`, has gone away."""


@dataclass(frozen=True)
class Result:
    """What a command found."""

    text: str
    """As a person reads it."""
    figures: dict[str, Any] | None = None
    """For `--json`, where a command has it."""
    exit_code: int = 0

    def as_json(self) -> str:
        """Return the figures as one JSON object on one line; those of single images are in files."""
        kept = {name: value for name, value in (self.figures or {}).items() if name != "per_image"}
        return json.dumps(kept, allow_nan=False)


class Console:
    """Says on stderr what is being done and how far it is; nothing when quiet. Warnings and errors do not go through it."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = _Nowhere() if quiet else sys.stderr

    def inform(self, text: str) -> None:
        """A line."""
        print(text, file=self._out, flush=True)

    def show(self, share: float, text: str) -> None:
        """Show how far the work is, a `ray_kplm.progress.ProgressCallback`: one line that moves on a terminal."""
        live = self._out.isatty()
        start, end = ("\r\x1b[K", "\n" if share >= 1 else "") if live else ("", "\n")
        print(f"{start}[{share:4.0%}] {text}", end=end, file=self._out, flush=True)

    def run_progress(self, weights: dict[str, float]) -> ProgressDisplay:
        """Return the progress display of a run, see `ray_kplm.progress`."""
        from ray_kplm.progress import ProgressDisplay

        return ProgressDisplay(weights, self._out)


class _Nowhere(io.StringIO):
    """Swallows what is written."""

    def write(self, text: str) -> int:
        return len(text)


def emit(text: str) -> None:
    """Print to stdout. When its reader has gone away the command ends there, silently, as one that SIGPIPE ends."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter flushes at its end
        raise SystemExit(OUTPUT_CLOSED) from None


def command(
    commands: Any, name: str, call: Callable[[argparse.Namespace], Result], text: str
) -> argparse.ArgumentParser:
    """A command of this name that does `call` and is described by `text`."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(call=call)
    return parser


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """The option `--json` of a command whose result has figures."""
    parser.add_argument(
        "--json", action="store_true", help=f"print {what} as one JSON object, and nothing else, on stdout"
    )


def figures_text(found: dict[str, Any]) -> str:
    """A line each."""
    return "\n".join(
        f"{name:28}{value:>16,.3f}" if isinstance(value, float) else f"{name:28}{value!s:>16}"
        for name, value in found.items()
    )
