"""What may stand in a configuration, and what is ready: configs, schema."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ray_kplm import ready_configs
from ray_kplm.cli.console import Result, command
from ray_kplm.report.text_table import align


def add(commands: Any) -> None:
    """Declare them."""
    text = "List the ready configurations, which `kplm train NAME` takes as it takes a file; with NAME: print that one."
    parser = command(commands, "configs", _configs, text)
    parser.add_argument("name", metavar="NAME", nargs="?", choices=ready_configs.names(), help="one of them")
    text = (
        "Print the JSON schema of the configuration. Editors with a YAML language server check and complete a file that begins "
        "with the line: # yaml-language-server: $schema=PATH"
    )
    command(commands, "schema", _schema, text)


def _configs(options: argparse.Namespace) -> Result:
    if options.name:
        return Result(ready_configs.path_of(options.name).read_text(encoding="utf-8").rstrip())
    rows = [[name, ready_configs.summary(name)] for name in ready_configs.names()]
    return Result("\n".join(align(rows, left=(0, 1))))


def _schema(options: argparse.Namespace) -> Result:
    from ray_kplm.config_schema import config_schema

    return Result(json.dumps(config_schema(), indent=2))
