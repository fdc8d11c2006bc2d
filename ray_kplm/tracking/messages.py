"""Lines for the user about MLflow: what its errors say in one line, without credentials."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

from ray_kplm.redaction import redact
from ray_kplm.storage import NO_SPACE

_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("database or disk is full", "No space left on device", "Disk quota exceeded", NO_SPACE)
_LENGTH = 200


def print_line(text: str) -> None:
    """Print a line for the user to standard error."""
    print(f"kplm: {redact(text)}", file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without credentials, at most 200 characters of it."""
    lines = redact(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= _LENGTH else f"{lines[0][:_LENGTH]} ..."


def is_full(error: BaseException) -> bool:
    """Return whether an error of MLflow, or what caused it, is that storage is full."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL_ERRORS) or any(text in str(one) for text in _FULL_TEXTS)
        for one in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and not any(following is one for one in seen):
        yield following
        seen.append(following)
        following = following.__cause__ or following.__context__
