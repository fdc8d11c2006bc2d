"""What a user reads of an error that Ray has carried here from the process where it was raised."""

from __future__ import annotations

import re

from ray.exceptions import RayTaskError

from ray_kplm import errors
from ray_kplm.errors import KplmError

_TOLD = re.compile(r"^ray_kplm\.errors\.(\w+): (.*)$", re.MULTILINE)


def unwrap_user_error(error: BaseException) -> KplmError | None:
    """What was said in this project's terms, if anything was: as the cause of the error, or, where Ray kept the words alone, at
    the end of its text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KplmError) and not isinstance(cause, RayTaskError):  # Ray makes classes that are both
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    told = _TOLD.findall(str(error))
    return getattr(errors, told[-1][0])(told[-1][1]) if told else None
