"""What commands share: how they are declared, and how they speak."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


class Lists(Help, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of what stands below the options."""


def command(commands: Any, name: str, call: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    """A command of this name that does `call` and is described by `text`."""
    parser = commands.add_parser(name, help=text, description=text, formatter_class=Help)
    parser.set_defaults(call=call)
    return parser


def say(text: str) -> None:
    """What is being done, to stderr."""
    print(f"{text} ...", file=sys.stderr, flush=True)


def count(done: int, total: int, what: str) -> None:
    """How far it is, to stderr: one line that moves on a terminal."""
    end = "\n" if done == total or not sys.stderr.isatty() else "\r"
    print(f"[{done / total:4.0%}] {done}/{total} {what}", end=end, file=sys.stderr, flush=True)


def print_figures(found: dict[str, Any]) -> None:
    """A line each."""
    for name, value in found.items():
        print(f"{name:28}{value:>16,.3f}" if isinstance(value, float) else f"{name:28}{value!s:>16}")


def print_metrics(metrics: dict[str, Any]) -> None:
    """The scores as a person reads them."""
    from ray_kplm.evaluation.tables import lines

    print("\n".join(lines(metrics)))


def print_json(metrics: dict[str, Any]) -> None:
    """One object, as the last line."""
    print(json.dumps({k: v for k, v in metrics.items() if k != "per_image"}, allow_nan=False), flush=True)


def ready_config(name: str) -> Path:
    """A configuration of jobs/configs, in the checkout that the package was installed from."""
    return Path(__file__).parents[2] / "jobs" / "configs" / f"{name}.yaml"
