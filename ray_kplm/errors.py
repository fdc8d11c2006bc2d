"""Errors a user can act on. The message is one line: the value, the rule, the way out."""

from __future__ import annotations


class KplmError(ValueError):
    """Base of all errors that name something the user can change. The command line prints it without a traceback."""


class ConfigError(KplmError):
    """A configuration value is unknown, of the wrong type or against a rule."""


class DataError(KplmError):
    """A dataset, an image or a table is missing, unreadable or not what the contract says."""


class StorageError(KplmError):
    """A store is full, or does not answer."""


class RunError(KplmError):
    """A run directory does not fit what was asked of it."""


class ClusterError(KplmError):
    """The Ray cluster that was named cannot be joined."""


class TrackingError(KplmError):
    """MLflow cannot be reached where a run has to be made."""


class CollapseError(KplmError):
    """Too few images or points are left to learn from."""


class StoppedEarly(KplmError):
    """A sweep has seen enough of a run: others are better."""
