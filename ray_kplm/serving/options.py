"""What a server of landmarks may be asked, and how it batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from ray_kplm.datasets.limits import Limits
from ray_kplm.errors import ConfigError
from ray_kplm.ranges import FILE_BYTES, PIXELS, PROBABILITIES, PROCESSES, Range, check_ranges

BATCHES = Range(1, 4096)
WAITS_MS = Range(0, 10_000)
TIMEOUTS_S = Range(0.1, 3600)
QUEUES = Range(1, 100_000)
PORTS = Range(1, 65_535)


@dataclass(frozen=True)
class ServeOptions:
    """Limits and batching of a server; each replica has its own queue.

    Attributes:
        max_batch: Images that the network sees at once at most.
        batch_wait_ms: An image waits so long at most for others, milliseconds.
        max_request_bytes: Size of the body of a request, which is also that of an image file.
        max_request_images: Images in a multipart request.
        max_pixels: Width times height of an image; decoding takes 7 bytes a pixel.
        timeout_s: Between the begin of a request and its answer, seconds.
        max_queue: Images that are decoded or wait; where there are as many, a request is refused.
        min_probability: Least probability of a landmark that is `found`.
        threads: Threads of the network in a replica; 0: the CPUs of the machine, shared by its replicas.
        replicas: Processes that hold the detector.
    """

    max_batch: Annotated[int, BATCHES] = 32
    batch_wait_ms: Annotated[float, WAITS_MS] = 15.0
    max_request_bytes: Annotated[int, FILE_BYTES] = 1 << 25
    max_request_images: Annotated[int, BATCHES] = 64
    max_pixels: Annotated[int, PIXELS] = 1 << 26
    timeout_s: Annotated[float, TIMEOUTS_S] = 30.0
    max_queue: Annotated[int, QUEUES] = 256
    min_probability: Annotated[float, PROBABILITIES] = 0.5
    threads: Annotated[int, Range(0, 4096)] = 0
    replicas: Annotated[int, PROCESSES] = 1

    def __post_init__(self) -> None:
        """Raise ConfigError if a value is out of its range."""
        check_ranges(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> ServeOptions:
        """Return options from a mapping, as it stands in a file for `serve deploy`. Raises ConfigError."""
        known = asdict(cls())
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"{name}: no option of a server; the options are {', '.join(known)}")
            if type(value) is not type(known[name]) and not (type(value) is int and type(known[name]) is float):
                raise ConfigError(f"{name} = {value!r}: must be of type {type(known[name]).__name__}")
        return cls(**values)

    @property
    def limits(self) -> Limits:
        """What an image may have at most."""
        return Limits(self.max_pixels, self.max_request_bytes)

    @property
    def max_queued_bytes(self) -> int:
        """Bytes of bodies that a replica holds at the same time at most: those of eight of the largest requests."""
        return 8 * self.max_request_bytes
