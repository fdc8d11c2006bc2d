"""Errors a user can act on. The message is one line: the value, the rule, the way out."""

from __future__ import annotations

from typing import ClassVar


class KplmError(ValueError):
    """Base of all errors that name something the user can change. The command line prints it without a traceback."""

    exit_code: ClassVar[int] = 1
    """Status with which a command ends that raises it; what the numbers mean stands in `ray_kplm.cli.EXIT_CODES`."""


class ConfigError(KplmError):
    """A configuration value is unknown, of the wrong type or against a rule."""

    exit_code = 2


class DataError(KplmError):
    """A dataset, an image or a table is missing, unreadable or not what the contract says."""

    exit_code = 3


class StorageError(KplmError):
    """A store is full, or does not answer."""

    exit_code = 4


class RunError(KplmError):
    """A run directory does not fit what was asked of it."""

    exit_code = 4


class ClusterError(KplmError):
    """The Ray cluster that was named cannot be joined."""

    exit_code = 5


class TrackingError(KplmError):
    """MLflow cannot be reached where a run has to be made."""

    exit_code = 4


class CollapseError(KplmError):
    """Too few images or points are left to learn from."""

    exit_code = 6


class StoppedEarly(KplmError):
    """A sweep has seen enough of a run: others are better."""
