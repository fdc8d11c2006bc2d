"""Whether images suit the discovery of landmarks: rules on what was measured, each with its figure, bound and way out.

Where the bounds come from stands in docs/screening.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How good a figure is; the worst of all is the verdict."""

    SUITABLE = 0
    RISKY = 1
    UNSUITABLE = 2

    @property
    def word(self) -> str:
        """The level's name for users."""
        return self.name.lower()


@dataclass(frozen=True)
class Measures:
    """What was measured on a dataset. Shares are of the images unless they say otherwise.

    Attributes:
        train: Number of training images.
        distinct: Number of different training images, nearly equal ones counted once.
        repeated: Share of the training images that are nearly equal to another one.
        largest_repeat: Number of images in the largest group of nearly equal ones.
        leaked: Share of the test images that are nearly equal to a training image; NaN without test images.
        side: Median longer side of the stored images, pixels.
        detail: Median side that holds an image's detail, pixels: `picture_detail.detail_side`.
        blurred: Share whose detail is below `BLURRED_SIDE`.
        flat: Share with hardly any contrast.
        clipped: Share that is mostly black or white.
        boxes: Share that has a box of the object.
        object_side: Longer side of the object, share of the image's longer side: of the boxes, or of the window that was found;
            NaN if neither is known.
        place: `common_place.common_place`.
        window_contrast: Of the best window, `object_windows.ObjectWindow`.
        window_side: Its side, share of the image's.
        objects: Number of objects that most images have at least, by windows that look alike.
        background: `common_place.fixed_background`.
        variety: `common_place.effective_number`.
        mirror: What a mirror image is: `partners` or `facing`.
        doubtful: Share of images whose facing is doubtful, where mirror images are `facing`.
    """

    train: int
    distinct: int
    repeated: float
    largest_repeat: int
    leaked: float
    side: float
    detail: float
    blurred: float
    flat: float
    clipped: float
    boxes: float
    object_side: float
    place: float
    window_contrast: float
    window_side: float
    objects: int
    background: float
    variety: float
    mirror: str
    doubtful: float


@dataclass(frozen=True)
class Finding:
    """One rule and what it found.

    Attributes:
        name: Of the rule: a stable word for programs.
        level: How good it is.
        figure: What was measured.
        bound: The bound that the figure is held against: the one that it breaks, or the one that would be the first to break.
        text: What was found, a sentence without a period.
        way_out: What to do about it, a sentence without a period; empty if nothing is to be done.
    """

    name: str
    level: Level
    figure: float
    bound: float
    text: str
    way_out: str = ""


FEW, VERY_FEW = 300, 50
"""Different training images. The smallest category on which a training was measured has 682, cattle; none was with 300."""
REPEATED = 0.2
LEAKED = 0.01
SMALL_SIDE, TINY_SIDE = 64, 48
"""Longer side of images, pixels: 16 and 12 cells of a heatmap."""
SOFT, BLURRED_SIDE = 40, 24
"""Sides that hold the detail, pixels. Faces and X-rays, whose landmarks are found well, have 64."""
BLURRED_SHARE = 0.1
BADLY_EXPOSED = 0.2
DIFFUSE, NO_PLACE = 0.012, 0.003
"""Common place. Without a common object -0.0001 to 0.0006; people at sports 0.007, the least of the object categories; the next
ones are 0.017 (rendered animals) and 0.024 (cattle); faces have 0.18."""
SMALL_OBJECT = 0.3
"""Of the image's side. A network's input of 96 px then has 29 px of the object."""
FOUND_CONTRAST, SEVERAL, SMALL_WINDOW = 1.0, 2, 0.34
"""Least contrast of a window that counts as an object, objects an image that are several, and the largest window of which
several fit. The best window of images with one object is half of the side or more; rendered sets of two to five objects have
1.1 to 3.0 with windows of a fifth to a third."""
FIXED = 0.4
"""Fixed background. Aligned X-rays have 0.17, faces 0.02; a still camera 0.64 and rendered marks at fixed places 0.61."""
LITTLE_VARIETY = 20
DOUBTFUL_SHARE = 0.3
"""Of the images' facings. Cattle have 1 %, rendered animals 4 %."""


def findings(m: Measures) -> list[Finding]:
    """Return the findings of all rules, the worst first."""
    found = [
        _number(m), _repeats(m), *_leak(m), _size(m), _detail(m), _blur(m), _exposure(m), _place(m), *_object_size(m),
        _objects(m), _background(m), _variety(m), _mirror(m),
    ]  # fmt: skip
    return sorted(found, key=lambda one: -one.level)


def verdict(found: Sequence[Finding]) -> Level:
    """Return the worst level."""
    return max((one.level for one in found), default=Level.SUITABLE)


def _below(figure: float, risky: float, unsuitable: float = -math.inf) -> tuple[Level, float]:
    """Return the level of a figure that should be large, and its bound."""
    if figure < unsuitable:
        return Level.UNSUITABLE, unsuitable
    return (Level.RISKY if figure < risky else Level.SUITABLE), risky


def _above(figure: float, risky: float) -> tuple[Level, float]:
    """Return the level of a figure that should be small, and its bound."""
    return (Level.RISKY if figure > risky else Level.SUITABLE), risky


def _number(m: Measures) -> Finding:
    level, bound = _below(m.distinct, FEW, VERY_FEW)
    text = f"{m.distinct:,} different training images"
    if m.distinct < m.train:
        text += f" of {m.train:,}, nearly equal ones counted once"
    return Finding("images", level, m.distinct, bound, text, _if(level, f"add images; {FEW} different ones or more"))


def _repeats(m: Measures) -> Finding:
    level, bound = _above(m.repeated, REPEATED)
    text = f"{_percent(m.repeated)} of the training images nearly repeat another one"
    if m.largest_repeat > 1:
        text += f"; one occurs {m.largest_repeat:,} times"
    way = "keep one of each: --every N takes fewer frames of a video, --drop-duplicates of `kplm ingest` one of equal files"
    return Finding("repeats", level, m.repeated, bound, text, _if(level, way))


def _leak(m: Measures) -> list[Finding]:
    if math.isnan(m.leaked):
        return []
    level, bound = _above(m.leaked, LEAKED)
    text = f"{_percent(m.leaked)} of the test images nearly repeat a training image"
    way = (
        "scores on such a test are too good: split by what images have in common (person, video, day), with folders "
        "train/ and test/"
    )
    return [Finding("leak", level, m.leaked, bound, text, _if(level, way))]


def _size(m: Measures) -> Finding:
    level, bound = _below(m.side, SMALL_SIDE, TINY_SIDE)
    text = f"half of the images have a longer side of at most {m.side:.0f} px"
    return Finding(
        "size", level, m.side, bound, text, _if(level, "take larger pictures, or a larger --size of `kplm ingest`")
    )


def _detail(m: Measures) -> Finding:
    level, bound = _below(m.detail, SOFT, BLURRED_SIDE)
    if m.side <= bound:  # small images say so by their size
        level = Level.SUITABLE
    text = f"the typical image has the detail of one of {m.detail:.0f} px"
    way = "take sharper pictures: these are blurred, or were enlarged"
    return Finding("detail", level, m.detail, bound, text, _if(level, way))


def _blur(m: Measures) -> Finding:
    level, bound = _above(m.blurred, BLURRED_SHARE)
    if m.side <= BLURRED_SIDE:
        level = Level.SUITABLE
    text = f"{_percent(m.blurred)} of the images are blurred: they lose nothing at {BLURRED_SIDE} px"
    return Finding("blur", level, m.blurred, bound, text, _if(level, "leave the blurred images out"))


def _exposure(m: Measures) -> Finding:
    share = max(m.flat, m.clipped)
    level, bound = _above(share, BADLY_EXPOSED)
    text = f"{_percent(m.flat)} of the images have hardly any contrast, {_percent(m.clipped)} are mostly black or white"
    return Finding("exposure", level, share, bound, text, _if(level, "correct the exposure, or leave these images out"))


_CROP = "give the objects' boxes to `kplm ingest --boxes`, which cuts each object out"


def _place(m: Measures) -> Finding:
    level, bound = _below(m.place, DIFFUSE, NO_PLACE)
    if level == Level.UNSUITABLE:
        text = "nothing is at a common place of the images: there is no common object, or it is small and anywhere"
        way = f"if there is an object, {_CROP}; landscapes and textures have no landmarks"
        if m.boxes > 0.5:  # the user says that there is an object
            level, way = Level.RISKY, "check that the boxes hold objects of one category, seen from similar sides"
    elif level == Level.RISKY:
        text = "the images have little in common at the same place: poses differ very much, or objects are small"
        way = "train on part of it, for example one pose or view"
        way += "" if m.boxes > 0.5 else f"; {_CROP}"
    else:
        text, way = "the images show something at a common place", ""
    return Finding("place", level, m.place, bound, text, way)


def _object_size(m: Measures) -> list[Finding]:
    if math.isnan(m.object_side):
        return []
    level, bound = _below(m.object_side, SMALL_OBJECT)
    origin = "boxes" if m.boxes > 0.5 else "windows that look alike; an estimate"
    text = f"the object's longer side is {_percent(m.object_side)} of the image's ({origin})"
    return [Finding("object_size", level, m.object_side, bound, text, _if(level, _CROP))]


def _objects(m: Measures) -> Finding:
    several = m.objects >= SEVERAL and m.window_contrast >= FOUND_CONTRAST and m.window_side <= SMALL_WINDOW
    if several:
        level = Level.RISKY if m.boxes > 0.5 else Level.UNSUITABLE
        text = (
            f"images show several objects: windows of {_percent(m.window_side)} of the side look alike, "
            f"{m.objects} of them or more in an image"
        )
        return Finding("several_objects", level, m.objects, SEVERAL, text, f"one object an image: {_CROP}")
    return Finding("several_objects", Level.SUITABLE, m.objects, SEVERAL, "no sign of several objects in an image")


def _background(m: Measures) -> Finding:
    level, bound = _above(m.background, FIXED)
    text = f"the borders of the images show the same details, likeness {m.background:.2f}"
    if level == Level.SUITABLE:
        text = f"backgrounds differ, likeness of the borders' details {m.background:.2f}"
    way = (
        "a still camera, or labels in the picture: leave method.drop_static at auto, which leaves such points out, and give "
        "boxes, which cut objects out of their background"
    )
    return Finding("background", level, m.background, bound, text, _if(level, way))


def _variety(m: Measures) -> Finding:
    level, bound = _below(m.variety, LITTLE_VARIETY)
    text = f"the images are as different as {m.variety:.0f} that have nothing in common"
    way = "add images of other individuals, poses and places"
    return Finding("variety", level, m.variety, bound, text, _if(level, way))


def _mirror(m: Measures) -> Finding:
    if m.mirror != "facing":
        text = "a mirror image shows the same view: landmarks have mirror partners"
        return Finding("mirror", Level.SUITABLE, 0.0, DOUBTFUL_SHARE, text)
    level, bound = _above(m.doubtful, DOUBTFUL_SHARE)
    text = f"objects are seen from the side and face either way; for {_percent(m.doubtful)} of the images it is unsure which"
    way = "give boxes, leave out views from the front, or set method.mirror=partners if objects are seen from the front"
    return Finding("mirror", level, m.doubtful, bound, text, _if(level, way))


def _if(level: Level, way_out: str) -> str:
    return way_out if level != Level.SUITABLE else ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.01 else f"{100 * share:.1f} %"
