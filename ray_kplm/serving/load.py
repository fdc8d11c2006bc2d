"""How much a server has to do, and when that is too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray_kplm.serving.options import ServeOptions
from ray_kplm.serving.refusal import busy


class Load:
    """The images that wait, and the bytes of bodies that are held, of all requests; for one event loop."""

    def __init__(self, options: ServeOptions) -> None:
        """Refuse above the limits of `options`."""
        self._options = options
        self.images = self.bytes = 0

    @contextmanager
    def request(self) -> Iterator[Held]:
        """Provide what a request holds; it is released at the end. Raises Refusal if the server is busy."""
        self.check(1)
        held = Held(self)
        try:
            yield held
        finally:
            self.images -= held.images
            self.bytes -= held.bytes

    def check(self, images: int) -> None:
        """Raise Refusal if so many images are too many beside those that wait; one request may always come alone."""
        if self.images and self.images + images > self._options.max_queue:
            raise busy(f"{self.images} images are waiting, and this server lets {self._options.max_queue} wait")

    def check_bytes(self, size: int) -> None:
        """Raise Refusal if so many bytes are too many beside those that are held."""
        if self.bytes + size > self._options.max_queued_bytes:
            raise busy("the images that are waiting have too many bytes")


class Held:
    """What one request holds."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.images = self.bytes = 0

    def add_images(self, count: int) -> None:
        """Let images wait. Raises Refusal if they are too many."""
        self._load.check(count)
        self.images += count
        self._load.images += count

    def add_bytes(self, size: int) -> None:
        """Hold bytes. Raises Refusal if they are too many."""
        self._load.check_bytes(size)
        self.bytes += size
        self._load.bytes += size
