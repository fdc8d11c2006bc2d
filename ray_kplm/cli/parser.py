"""The parser of `kplm` and of each of its commands: argparse with the manners that all of them share."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from ray_kplm.cli.console import emit


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


class Lists(Help, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of what stands below the options."""


class Parser(argparse.ArgumentParser):
    """Takes -v and -q before and after a command, overrides among options, and suggests what a mistyped word may mean."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Help, **settings})
        for flags, name, text in (
            (("-v", "--verbose"), "verbose", "also the libraries' log, and where an error came from"),
            (("-q", "--quiet"), "quiet", "say nothing but warnings, errors and the result"),
        ):
            self.add_argument(
                *flags, dest="verbosity", action="store_const", const=name, default=argparse.SUPPRESS, help=text
            )  # without a default, a command's own flag does not undo the one before it

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; a command refuses what it does not know itself, as it knows what was meant.

        argparse takes a list of words in one piece only: those after an option (CONFIG --json key=value) are left over.
        """
        options, rest = super().parse_known_args(args, namespace)
        unknown = [word for word in rest if word.startswith("-")]
        words = next((action.dest for action in self._get_positional_actions() if action.nargs == "*"), None)
        if unknown or (rest and words is None):
            known = [flag for action in self._actions for flag in action.option_strings]
            near = dict.fromkeys(near for word in unknown for near in _near(word.partition("=")[0], known))
            self.error(f"unrecognized arguments: {' '.join(unknown or rest)}{_suggestion(near)}")
        if words is not None:
            setattr(options, words, [*getattr(options, words), *rest])
        return options, []

    def print_help(self, file: Any = None) -> None:
        """Print the help, to a reader that may go away."""
        if file is None:
            emit(self.format_help().rstrip())
        else:
            super().print_help(file)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            near = _near(str(value), map(str, action.choices))
            hint = _suggestion(near) or f"; choose from {', '.join(map(str, action.choices))}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint}")


class Version(argparse.Action):
    """Prints the version of the installed package, which is looked up only then: it takes as long as all of the help."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and end."""
        import importlib.metadata

        try:
            emit(f"{parser.prog} {importlib.metadata.version('ray-kplm')}")
        except importlib.metadata.PackageNotFoundError:  # the code of a Ray job is not installed
            emit(f"{parser.prog}: not installed, run from {__file__}")
        parser.exit()


def _near(word: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word, list(known), n=1)


def _suggestion(near: Iterable[str]) -> str:
    return f"; did you mean {', '.join(near)}?" if near else ""
