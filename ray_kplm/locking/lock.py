"""A lock on a folder that admits one driver at a time, on any storage, and shuts out one that has lost it.

**Claims.** A driver writes a claim, `.driver-<term>.json`, whose number is larger than those of all claims that it sees. Only
one driver can create a file of a name (`exclusive_files`). Then it lists the folder: it holds the lock if it sees no other
claim but those of drivers that it found dead, and now removes. Where storage has no exclusive creation, the names are
`.driver-<term>-<token>.json`, and this listing alone decides: of two drivers that come at the same time, at least one sees
the other's claim.

**Heartbeat.** No clocks of two machines are compared. A holder rewrites its claim with a counter every few seconds, and a
driver that wants the lock measures with its own clock for how long the file has not changed. After `PATIENCE_S` its holder
counts as dead. If the holder runs on the same machine, its process is looked up instead: it is dead when it has ended. A
stopped one (Ctrl-Z, SIGSTOP) is alive, as the user can let it go on or end it. A claim that is empty, torn or of an unknown
form is somebody's too: it is waited for, and removed if it does not change.

**Fence.** A dead driver may come back: its process or its machine was suspended, or it could not reach the storage. So the
folder that a lock gives out (`FolderLock.folder`), and all below it, in this process and in those of Ray, read the claim from
storage before each file that is published and before each deletion (`Fence`). If it is gone, the successor removed it, which
is the first thing that a successor does: the change is refused with RunError. What remains is the moment between this look
and the change itself.

**Loss.** A lock is lost when the claim is gone, when no heartbeat could be written for `PATIENCE_S`, and when the thread of
the heartbeat has ended. A thread watches that, and notices that the process was suspended. If the lock was taken by the main
thread, that thread is then interrupted as by Ctrl-C, which ends a driver and its workers within seconds, and `lock_folder`
raises RunError with the reason. Workers look for themselves (`Patrol`), as their driver may be suspended still.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Any

from ray_kplm.errors import KplmError, RunError, StorageError
from ray_kplm.locking.claims import claim_content, read_claim, read_claims
from ray_kplm.locking.exclusive_files import ExclusiveFiles, exclusive_files
from ray_kplm.locking.fence import Fence, stopping
from ray_kplm.locking.takeover import acquire, clock
from ray_kplm.storage import Folder

BEAT_S = 5.0
"""Between two heartbeats of a holder, seconds."""
PATIENCE_S = 30.0
"""A holder on another machine without a heartbeat for this many seconds counts as dead, and gives up itself."""
_WATCH_S = 0.5
"""Between two looks at the heartbeat."""
_REPEAT_S = 30.0
"""Between two interruptions of a driver that has lost its lock and does not end."""
_SUSPENDED_S = 2.0
"""A look that comes later than this by so much shows that the process was suspended."""


class LeaseLost(KeyboardInterrupt):
    """Interrupts the main thread of a driver that has lost its lock: it ends as by Ctrl-C, without waiting for its workers."""


class FolderLock:
    """A lock that this process holds until `release`, or until it is lost."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        values: dict[str, Any],
        files: ExclusiveFiles,
        beat_s: float = BEAT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Start the heartbeat.

        Args:
            folder: the locked folder.
            name: file of this process's claim on it.
            values: what the claim says.
            files: what rewrites it.
            beat_s: between two heartbeats, seconds.
            patience_s: how long the heartbeat may fail, seconds.
        """
        self._values, self._files, self._beat_s, self._patience_s = values, files, beat_s, patience_s
        self._name, self._fence = name, Fence(folder, name, values["token"])
        self._loss, self._reason = "", "the storage does not answer"
        self._losing, self._stop, self._beat_now = threading.Lock(), threading.Event(), threading.Event()
        self._trouble_since: float | None = None
        self._on_loss: Callable[[], None] = lambda: None
        self._heart = threading.Thread(target=self._keep_alive, name="kplm-heartbeat", daemon=True)
        self._watch = threading.Thread(target=self._watch_heart, name="kplm-heartbeat-watch", daemon=True)
        self._heart.start()
        self._watch.start()

    @property
    def folder(self) -> Folder:
        """The locked folder. What is published or deleted in it, or below, asks first whether the lock is still held."""
        return replace(self._fence.folder, guard=self._fence)

    @property
    def is_lost(self) -> bool:
        """Whether the lock is known to be lost."""
        return bool(self._loss)

    def check(self) -> None:
        """Look at the claim on storage, and raise RunError if the lock is lost."""
        if not self._loss:
            self._note_loss(self._fence.loss(), tell=False)
        if self._loss:
            raise RunError(self.loss)

    @property
    def loss(self) -> str:
        """How the lock was lost as far as is known, in one line; empty if it is held."""
        return stopping(self._fence.folder, self._loss) if self._loss else ""

    def call_on_loss(self, function: Callable[[], None]) -> None:
        """Have a function called by another thread when that finds out that the lock is lost."""
        with self._losing:
            self._on_loss = function

    def release(self) -> None:
        """Remove the claim, unless it is lost."""
        self._stop.set()
        self._beat_now.set()
        for thread in (self._heart, self._watch):
            thread.join(self._patience_s)  # it may hang in a request
        self._remove_claim()

    def _remove_claim(self) -> None:
        with suppress(OSError, StorageError):  # if it cannot be removed, the next driver takes over from it
            if (claim := read_claim(self._fence.folder, self._name)) and claim.token == self._fence.token:
                self._fence.folder.delete_file(self._name)

    def _note_loss(self, loss: str, *, tell: bool = True) -> None:
        with self._losing:
            if loss and not self._loss:
                self._loss = loss
                if tell:
                    self._on_loss()

    def _keep_alive(self) -> None:
        """Write the heartbeats."""
        while not self._stop.is_set():
            self._beat_now.wait(self._beat_s)
            self._beat_now.clear()
            if self._stop.is_set() or self._loss:
                return
            self._trouble_since = self._trouble_since or clock()
            try:
                self._note_loss(self._beat())
                self._trouble_since = None
            except (OSError, StorageError) as error:  # storage that is full or fails for a while
                self._reason = " ".join(str(error).split())
            except Exception as error:
                self._note_loss(f"the heartbeat of this process failed ({' '.join(str(error).split())})")

    def _beat(self) -> str:
        """Write a heartbeat; return how the lock was lost, "" if it is held."""
        if loss := self._fence.loss():
            return loss
        self._values["beat"] += 1
        if not self._files.rewrite(self._name, claim_content(self._values)):
            return self._fence.loss() or f"{self._name}, the claim of this process, was replaced"
        if not self._files.is_exclusive and any(self._values["token"] in c.replaced for c in read_claims(self.folder)):
            loss = self._fence.describe_loss()
            self._remove_claim()  # the successor had removed it, and the heartbeat brought it back
            return loss
        return ""

    def _watch_heart(self) -> None:
        """Find out that the heartbeat has ended or cannot be written, or that the process was suspended."""
        looked, awake_since, pause = clock(), 0.0, min(_WATCH_S, self._beat_s / 2)
        while not self._stop.wait(pause):
            now = clock()
            if now - looked > pause + _SUSPENDED_S:
                awake_since = now
                self._beat_now.set()
            looked, since = now, self._trouble_since
            if self._loss:
                break
            if not self._heart.is_alive():
                self._note_loss("the thread that writes the heartbeat of this process has ended")
            elif since is not None and now - max(since, awake_since) > self._patience_s:
                self._note_loss(f"no heartbeat could be written for {self._patience_s:.0f} s ({self._reason})")
        if self._loss:
            self._remove_claim()  # then workers on other machines see it too
        while not self._stop.wait(_REPEAT_S):  # the interruption can be lost where Python ignores exceptions
            with self._losing:
                self._on_loss()


@contextmanager
def lock_folder(
    folder: Folder,
    *,
    beat_s: float | None = None,
    patience_s: float | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[FolderLock]:
    """Hold the lock of a folder while the block runs. What the block writes it writes to `FolderLock.folder`.

    Args:
        folder: the folder, which need not exist.
        beat_s: between two heartbeats, seconds; `BEAT_S` by default.
        patience_s: how long to wait for a heartbeat of a holder on another machine, and how long the own one may fail,
            seconds; `PATIENCE_S` by default.
        log: gets a line when this wait begins; standard error by default.

    Raises:
        RunError: another driver holds the lock, and the message says which; or it was lost during the block.
    """
    beat_s, patience_s = beat_s or BEAT_S, patience_s or PATIENCE_S
    files = exclusive_files(folder)
    lock = FolderLock(folder, *acquire(folder, files, patience_s, log or _print), files, beat_s, patience_s)
    try:
        with _interrupted_on_loss(lock):
            yield lock
    except GeneratorExit:
        raise
    except BaseException as error:
        if not isinstance(error, StorageError):
            with suppress(OSError, KplmError):
                lock.check()
        if lock.loss:  # whatever failed, failed because of it
            raise RunError(lock.loss) from error
        raise
    finally:
        lock.release()


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # also in the middle of a system call
    else:
        _thread.interrupt_main()


@contextmanager
def _interrupted_on_loss(lock: FolderLock) -> Iterator[None]:
    """Raise LeaseLost in the block when the lock is lost, if this is the main thread; other threads find out by the fence."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, is_inside = signal.getsignal(signal.SIGINT), True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if lock.is_lost:
            if is_inside:
                raise LeaseLost
        elif callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    lock.call_on_loss(_interrupt_main_thread)
    try:
        yield
    finally:
        is_inside = False
        lock.call_on_loss(lambda: None)
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


def _print(text: str) -> None:
    print(f"kplm: {text}", file=sys.stderr, flush=True)
