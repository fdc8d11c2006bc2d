"""Errors that a user can act on. The message is one line: the value, the rule, the way out."""

from __future__ import annotations

from typing import ClassVar

from ray_kplm.redaction import redact


class KplmError(ValueError):
    """Base of all errors that name something the user can change. The command line prints them without a traceback."""

    exit_code: ClassVar[int] = 1
    """Exit status of a command that raises it; the meanings are in `ray_kplm.cli.main.EXIT_CODES`."""

    def __init__(self, *arguments: object) -> None:
        """Make the error; its message is kept without credentials."""
        super().__init__(*(redact(argument) if isinstance(argument, str) else argument for argument in arguments))


class ConfigError(KplmError):
    """A configuration key is unknown, or a value has a wrong type or breaks a rule."""

    exit_code = 2


class DataError(KplmError):
    """A dataset, an image or a table is missing, unreadable, or does not have the expected schema."""

    exit_code = 3


class StorageError(KplmError):
    """Storage is full, refuses access, or does not answer."""

    exit_code = 4


class DamageError(StorageError):
    """A published file is damaged or lost: its content is not what was written, or cannot be read."""


class RunError(KplmError):
    """A run directory does not fit the request: it was made by another configuration, is unfinished or in use."""

    exit_code = 4


class ClusterError(KplmError):
    """The Ray cluster cannot be joined, or a local Ray does not start."""

    exit_code = 5


class TrackingError(KplmError):
    """MLflow cannot be reached when a run has to be created."""

    exit_code = 4


class CollapseError(KplmError):
    """Too few images or points are left to train on."""

    exit_code = 6


class StoppedEarly(KplmError):
    """A sweep stops a trial early because others are better."""
