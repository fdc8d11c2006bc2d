"""The page about a dataset, before training: one self-contained HTML file that loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ray_kplm.report.check_table import VERDICTS, next_command, number, suggestion_lines
from ray_kplm.report.pictures import Thumbnail, thumbnail

_SIDE = 128
"""Longer side of a picture, pixels."""


@dataclass(frozen=True)
class Example:
    """A picture that shows a finding.

    Attributes:
        caption: Below it; may be empty.
        picture: The picture.
        boxes: x, y, width and height of rectangles to draw, pixels of the picture.
    """

    caption: str
    picture: Thumbnail
    boxes: Sequence[tuple[float, float, float, float]]


def example(caption: str, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> Example:
    """Return an example of an image (H, W, 3) with boxes (n, 4), x0, y0, x1, y1 as shares of its width and height."""
    small = thumbnail(image, _SIDE)
    size = np.array([small.width, small.height])
    drawn = [
        (*(box[:2] * size).round(1).tolist(), *((box[2:] - box[:2]) * size).round(1).tolist())
        for box in boxes.clip(0, 1)
    ]
    return Example(caption, small, drawn)


def build_page(figures: Mapping[str, Any], examples: Mapping[str, Sequence[Example]], dataset: str, config: str) -> str:
    """Return the page as HTML.

    Args:
        figures: See `analysis.check_dataset.Check.figures`.
        examples: Of the findings, by their names; and of the dataset, as `sample`.
        dataset: Where the dataset is.
        config: Name of the configuration that was timed.
    """
    environment = Environment(
        loader=PackageLoader("ray_kplm.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["figure"] = number
    suggested = figures["suggested"]
    return environment.get_template("check.html").render(
        f=figures,
        meaning=VERDICTS[figures["verdict"]],
        reasons=[one for one in figures["findings"] if one["level"] != "suitable"],
        examples=examples,
        suggestions=suggestion_lines(suggested, config),
        command=next_command(suggested, config, dataset) if figures["verdict"] != "unsuitable" else None,
    )
