"""Messages of a training that failed. No Ray is started."""

import pytest

from ray_kplm.errors import CollapseError, DataError, RunError, StorageError
from ray_kplm.runtime.train_workers import _as_user_error


class Failed(Exception):
    """The error that Ray Train raises: failures by the worker's rank."""

    def __init__(self, failure):
        self.worker_failures = {0: failure}


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device"), StorageError, "no space"),
        (CollapseError("the loss is nan"), CollapseError, "the loss is nan"),
        (RuntimeError("Traceback\n  ...\nray_kplm.errors.CollapseError: the loss is nan"), CollapseError, "the loss is nan"),
        (RuntimeError("...\nray_kplm.errors.DataError: a.parquet: gone\nFailed to apply"), DataError, "a.parquet: gone"),
        (RuntimeError(), RunError, "training failed: RuntimeError; run the same command"),
        (RuntimeError("Traceback\n  ...\nIndexError: 7"), RunError, "training failed: IndexError: 7; run the same command"),
    ],
)  # fmt: skip
def test_a_failed_training_is_one_line(failure, kind, text):
    error = _as_user_error(Failed(failure), "runs/mine/stage2", "training failed")
    assert type(error) is kind
    assert text in str(error)
    assert "\n" not in str(error)
