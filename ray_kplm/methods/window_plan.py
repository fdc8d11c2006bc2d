"""The data plan of stage 2 on more images than memory should hold: it shuffles windows of parts.

Each pass over the images has a seeded order of parts. A window is a few consecutive parts of this order, and its images are
shuffled among themselves. The views of a training are the usable images of window 0, then those of window 1, and so on: every
image once before any is used twice. So at any time a training needs the images of few parts only.

What a window shows follows from the seed, its number and its count of usable images. The number of workers and restarts do not
change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WHOLE_IMAGES = 16_384
"""A training holds this number of images whole, or those of a round if they are more. Crops of 256 px take 0.3 GB."""
WINDOW_PARTS = 4
"""Parts of a window: a block of views that crosses from one window to the next touches twice as many."""
_ORDER, _VIEWS = 1, 2
"""Of the seeds of the order of parts, and of a window's views."""


class WindowViews(NamedTuple):
    """The n views of a window, in the order of use.

    Attributes:
        image: int64 (n,), index among the usable images of the window, whose parts are in the plan's order.
        seed: int64 (n,), of the view's augmentation.
        flip: bool (n,), whether the view shows the mirror image, where that is drawn.
    """

    image: NDArray[np.int64]
    seed: NDArray[np.int64]
    flip: NDArray[np.bool_]


@dataclass(frozen=True)
class WindowPlan:
    """The views of a training on single images, window by window.

    Attributes:
        parts: number of parts that the training's images are in.
        images: number of the training's images, usable or not.
        iterations: of the training.
        views: views in an iteration.
        flip: whether a view is mirrored with probability 1/2. Where images face one way, their labels say so instead.
        seed: of the plan.
        window_parts: most parts of a window.
    """

    parts: int
    images: int
    iterations: int
    views: int
    flip: bool
    seed: tuple[int, ...]
    window_parts: int = WINDOW_PARTS

    @property
    def batch(self) -> int:
        """Views in an iteration, which the workers share equally."""
        return self.views

    @property
    def windows(self) -> int:
        """Windows in a pass."""
        return -(-self.parts // self.window_parts)

    def members(self, window: int) -> NDArray[np.int64]:
        """Return the parts of a window, counted from 0 through all passes."""
        number, place = divmod(window, self.windows)
        # Of nearly equal sizes: none has a single part left over, which a block would be longer than.
        first, last = place * self.parts // self.windows, (place + 1) * self.parts // self.windows
        return _order_of_parts(self.parts, (*self.seed, number))[first:last]

    def shown(self, window: int, count: int) -> WindowViews:
        """Return the views of a window that has `count` usable images."""
        rng = np.random.default_rng([*self.seed, window, _VIEWS])
        image, seed = rng.permutation(count), rng.integers(0, 2**31, count)
        return WindowViews(image, seed, (rng.random(count) < 0.5) & self.flip)

    def places(self, first: int, last: int, rank: int, workers: int) -> NDArray[np.int64]:
        """Return which views worker `rank` of `workers` uses in the iterations first <= i < last, counted from the first."""
        share = self.views // workers
        grid = np.arange(first * self.views, last * self.views).reshape(last - first, self.views)
        return grid[:, rank * share : (rank + 1) * share].ravel()

    def block_iterations(self, views: int, workers: int) -> int:
        """Return the iterations of a block: so many that a worker has `views` views of them, or fewer.

        Of many workers, each has few views of an iteration. A block of theirs spans no more iterations than lie in two windows.
        """
        span = self.images // self.windows // 2
        return max(1, min(views * workers, span) // self.views)


@lru_cache(maxsize=4)
def _order_of_parts(parts: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng([*seed, _ORDER]).permutation(parts)
