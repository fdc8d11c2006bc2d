"""Notes to the user from code below the command line. They go to standard error, and nowhere when the command is quiet."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ray_kplm.redaction import redact

WAIT_S = 1.0
"""After this time without a word it is said what is waited for, seconds."""
is_quiet = False
"""Whether notes are dropped; warnings and errors are not."""


def note(text: str, descriptor: int | None = None) -> None:
    """Print a line to standard error, or to another file descriptor."""
    if is_quiet:
        return
    text = redact(text)
    if descriptor is None:
        print(text, file=sys.stderr, flush=True)
    else:
        os.write(descriptor, f"{text}\n".encode())


@contextmanager
def waiting(text: str, after_s: float = WAIT_S, descriptor: int | None = None) -> Iterator[None]:
    """Print a line if the block takes longer than `after_s` seconds."""
    timer = threading.Timer(after_s, note, [text, descriptor])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
