"""Options of commands that read videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray_kplm.cli.parser import Number
from ray_kplm.ranges import COUNTS, Range

if TYPE_CHECKING:
    from ray_kplm.inference.videos import RenderOptions
    from ray_kplm.video.options import SmoothOptions

_TRAILS = Range(0, 1000)


def add_every(parser: argparse.ArgumentParser) -> None:
    """Add the option that takes videos for a dataset."""
    parser.add_argument(
        "--every", type=Number(int, COUNTS), default=None, metavar="N",
        help="use every N-th frame of videos, which are sequences then; default: all frames of videos that are named, and none "
        "of those in folders",
    )  # fmt: skip


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kplm predict` for videos."""
    from ray_kplm.video.options import BETAS, CUTOFFS, SmoothOptions

    default = SmoothOptions()
    group = parser.add_argument_group("videos", "Each frame is an image, clip.mp4/000012.")
    group.add_argument(
        "--render",
        metavar="FILE",
        help="write the video with its landmarks drawn: .mp4, .mov or .mkv; of several videos: a folder",
    )
    group.add_argument(
        "--trail", type=Number(int, _TRAILS), default=10, metavar="N",
        help="draw where each landmark was in the last N frames; default: 10, 0: nothing",
    )  # fmt: skip
    group.add_argument("--no-numbers", action="store_true", help="draw no names or numbers beside the landmarks")
    group.add_argument(
        "--smooth", choices=["none", "one-euro"], default=default.method,
        help="smooth the landmarks over time, in all that is written; default: none",
    )  # fmt: skip
    group.add_argument(
        "--smooth-min-cutoff", type=Number(float, CUTOFFS), default=default.min_cutoff, metavar="HZ",
        help=f"cut-off frequency at rest: lower trembles less and lags more; default: {default.min_cutoff:g}",
    )  # fmt: skip
    group.add_argument(
        "--smooth-beta", type=Number(float, BETAS), default=default.beta, metavar="B",
        help="rise of the cut-off frequency, Hz for a speed of the picture's longer side in a second: higher lags less; "
        f"default: {default.beta:g}",
    )  # fmt: skip
    group.add_argument(
        "--smooth-derivative-cutoff", type=Number(float, CUTOFFS), default=default.derivative_cutoff, metavar="HZ",
        help=f"cut-off frequency of the speed; default: {default.derivative_cutoff:g}",
    )  # fmt: skip


def smoothing(options: argparse.Namespace) -> SmoothOptions:
    """Return the smoothing that the options ask for."""
    from ray_kplm.video.options import SmoothOptions

    return SmoothOptions(
        options.smooth, options.smooth_min_cutoff, options.smooth_beta, options.smooth_derivative_cutoff
    )


def rendering(options: argparse.Namespace) -> RenderOptions | None:
    """Return what is to be drawn where; None: nothing."""
    from ray_kplm.inference.videos import RenderOptions

    if options.render is None:
        return None
    return RenderOptions(options.render, options.trail, numbers=not options.no_numbers)


def check_package(paths: Sequence[str]) -> None:
    """Raise ConfigError if one of the paths is a video by its name, and PyAV is not installed."""
    from ray_kplm.datasets.file_kinds import extension_of, is_video
    from ray_kplm.extras import check_installed

    if any(is_video(extension_of(path)) for path in paths):
        check_installed("av")
