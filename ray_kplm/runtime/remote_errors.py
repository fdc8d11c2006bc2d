"""Recover this package's errors from those that Ray raises for another process."""

from __future__ import annotations

import re

from ray.exceptions import RayTaskError

from ray_kplm import errors
from ray_kplm.errors import KplmError

_ERROR_LINE = re.compile(r"^ray_kplm\.errors\.(\w+): (.*)$", re.MULTILINE)


def unwrap_user_error(error: BaseException) -> KplmError | None:
    """Return the `KplmError` that a remote process raised, or None if it raised another error.

    It is searched for along the causes of `error`, then in its text, where the last match counts: Ray Train and Ray Data keep
    only the text of some errors.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KplmError) and not isinstance(cause, RayTaskError):  # Ray makes classes that are both
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    matches = _ERROR_LINE.findall(str(error))
    if not matches:
        return None
    name, message = matches[-1]
    user_error: KplmError = getattr(errors, name)(message)
    return user_error
