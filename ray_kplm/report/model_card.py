"""The model card of a detector that is shared, in Markdown: what it finds, how good it is, what to mind, where it is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ray_kplm.imaging.draw import Marks, draw_landmarks, encode_png
from ray_kplm.redaction import redact

LAYOUT_SIDE = 480
"""Side of the picture of the layout, pixels."""
_GREY = 160
"""Of the picture's ground, on which the numbers, white with a dark rim, are read."""
_BORDER = 0.12
"""Share of the picture's side that stays free at each border, for the numbers."""
_MARKUP = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|"})
"""Text of data sets is shown as it is: it makes no links, tables or HTML."""


@dataclass(frozen=True)
class Card:
    """All that a model card says.

    Attributes:
        title: Headline.
        name: What `from_pretrained` takes: `user/name`, or a folder.
        landmarks: Number of the points that the detector finds: its landmarks, or what is made of them.
        method: `method.kind`.
        images: Number of images the landmarks were discovered in; 0 if that is not known.
        synthetic: Whether these were rendered by this package.
        has_visibility: Whether the detector gives probabilities.
        dataset: Name of the data set.
        data_licence: What the data set says of the licence of its images.
        licence: The licence of the model, an identifier of the hub; empty: not stated.
        label_free: Name, value and meaning of each label-free measure; empty if it was not measured.
        labelled: The same of the scores against annotation.
        test_images: Number of images that were scored.
        warnings: Sentences without a period.
        layout: File of the picture of the layout; empty: none.
        layout_images: Number of images it is the mean of.
        sheet: File of the contact sheet; empty: none.
        facts: Further facts, name -> value.
        points: Name of each point, its partner in the mirror image and its error, both or one empty; none if names are numbers.
        made: Sentences without a period on how the points were made, if they are not the landmarks as they were discovered.
        discovered: Number of the landmarks that were discovered, which the measures are of; 0: no measure is of them.
    """

    title: str
    name: str
    landmarks: int
    method: str
    images: int = 0
    synthetic: bool = False
    has_visibility: bool = True
    dataset: str = ""
    data_licence: str = ""
    licence: str = ""
    label_free: Sequence[tuple[str, str, str]] = ()
    labelled: Sequence[tuple[str, str, str]] = ()
    test_images: int = 0
    warnings: Sequence[str] = ()
    layout: str = ""
    layout_images: int = 0
    sheet: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    points: Sequence[tuple[str, str, str]] = ()
    made: Sequence[str] = ()
    discovered: int = 0

    @property
    def noun(self) -> str:
        """What the detector finds."""
        return "points" if self.made else "landmarks"


def build_card(card: Card) -> str:
    """Return the card as Markdown with the hub's metadata in front."""
    environment = Environment(
        loader=PackageLoader("ray_kplm.report", "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"line": _line, "cell": _line}
    return environment.get_template("model_card.md").render(c=card, front_matter=_front_matter(card))


def layout_picture(shape: NDArray[np.floating], marks: Marks | None = None) -> bytes:
    """Return a PNG of the mean layout (K, 2) of landmarks, in any unit: discs on grey, with numbers, or as `marks` say."""
    low, high = shape.min(axis=0), shape.max(axis=0)
    extent = max(float((high - low).max()), 1e-9)
    scale = LAYOUT_SIDE * (1 - 2 * _BORDER) / extent
    xy = (shape - (low + high) / 2) * scale + (LAYOUT_SIDE - 1) / 2
    canvas = np.full((LAYOUT_SIDE, LAYOUT_SIDE, 3), _GREY, np.uint8)
    return encode_png(draw_landmarks(canvas, xy, numbers=True, marks=marks))


def _front_matter(card: Card) -> str:
    licence = {"license": card.licence} if card.licence else {"license": "other", "license_name": "not-stated"}
    tags = ["ray-kplm", "landmark-detection", "keypoint-detection", "unsupervised", f"method-{card.method}"]
    tags += ["synthetic"] if card.synthetic else []
    metadata = {**licence, "library_name": "ray-kplm", "pipeline_tag": "keypoint-detection", "tags": tags}
    text: str = yaml.safe_dump(metadata, sort_keys=False)
    return text


def _line(value: object) -> str:
    """Return text of anywhere as one line of Markdown without markup and credentials."""
    return redact(" ".join(str(value).split())).translate(_MARKUP)
