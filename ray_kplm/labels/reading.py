"""Annotated points of images from a file of any of the known formats, joined with the images and checked against them."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.image_io import read_image_bytes, upright_size
from ray_kplm.datasets.source_files import map_paths, read_file
from ray_kplm.errors import DataError
from ray_kplm.labels.annotation_file import AnnotatedObject, AnnotationFile
from ray_kplm.labels.formats import read_annotations
from ray_kplm.labels.image_files import FoundImage, ImageFiles
from ray_kplm.labels.labels import Labels
from ray_kplm.storage import Folder

OUTSIDE_PX = 3.0
"""Points this far beyond the border of their picture are used as they are: a click beside it, or a rounding."""


def read_labels(uri: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> Labels:
    """Return the annotated points of a file, in pixels of the upright pictures with pixel centres at integers.

    The format is known by the content: see `labels.formats`. An image is looked for below the folder `images`, where its path
    says and else by the end of its path; then beside the file. Images and objects that cannot be used are in `rejected`.

    Args:
        uri: A path or URI of the file.
        images: A folder of the images.

    Raises:
        DataError: There is no such file, it is of no known format, no image is found, or nothing in it can be used.
        ConfigError: A package that its format needs is not installed.
    """
    where = os.fspath(uri)
    file = _read(where)
    finder = ImageFiles(where, None if images is None else os.fspath(images))
    if images is not None and not Folder.at(images).is_folder():
        raise DataError(f"{os.fspath(images)}: no such folder of images")
    if not file.objects:
        said = "; ".join([*file.notes, *(f"{name}: {reason}" for name, reason in file.rejected[:1])])
        raise DataError(f"{where}: no object has an annotated point{f' ({said})' if said else ''}")
    found = finder.find({one.image: (one.image, *one.other_names) for one in file.objects})
    _check_found(found, where, finder.places)
    return _joined(file, found, where)


def named_images(uri: str | os.PathLike[str]) -> set[str]:
    """Return the names of the images that a file annotates, as it writes them and in other spellings; none is looked for.

    For errors, see `read_labels`.
    """
    return {name for one in _read(os.fspath(uri)).objects for name in (one.image, *one.other_names)}


def _read(where: str) -> AnnotationFile:
    at = Folder.at(where)
    if at.is_folder():
        raise DataError(f"{where}: is a folder; name the file of annotations")
    return read_annotations(read_file(at.parent, at.name, missing=f"{where}: no such file"), where)


def _check_found(found: dict[str, FoundImage | str], where: str, places: str) -> None:
    """Raise DataError if no image is found."""
    if any(isinstance(image, FoundImage) for image in found.values()):
        return
    name, reason = next(iter(found.items()))
    raise DataError(
        f"{where}: none of its {len(found)} images is found, e.g. {name!r} ({reason}); looked in {places}: "
        "name their folder (--images FOLDER)"
    )


def _joined(file: AnnotationFile, found: dict[str, FoundImage | str], where: str) -> Labels:
    """Return the objects whose images can be used."""
    sizes = _sizes({image.uri: image for image in found.values() if isinstance(image, FoundImage)})
    rejected, kept = (
        list(file.rejected),
        list[tuple[str, NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]](),
    )
    faults: dict[tuple[str, str], None] = {}
    for one in file.objects:
        image = found[one.image]
        size: tuple[int, int] | str = image if isinstance(image, str) else sizes[image.uri]
        fault = size if isinstance(size, str) else _size_fault(one, size)
        if fault or isinstance(image, str) or isinstance(size, str):
            faults[one.image, fault] = None
            continue
        xy, box = one.in_pixels(*size)
        xy, outside = _inside(xy, size, file.names)
        faults |= {(one.image, reason): None for reason in outside}
        if np.isfinite(xy).any():
            kept.append((image.uri, xy, one.visible & np.isfinite(xy).all(axis=1), box))
    rejected += faults
    if not kept:
        name, reason = rejected[0]
        raise DataError(f"{where}: none of {len(file.objects)} annotated objects can be used, e.g. {name}: {reason}")
    images, points, visible, boxes = zip(*kept, strict=True)
    notes = [*file.notes, *_never_annotated(file.names, np.stack(points))]
    return Labels(
        file.names,
        images,
        np.stack(points),
        np.stack(visible),
        np.stack(boxes),
        file.skeleton,
        tuple(rejected),
        tuple(notes),
    )


def _sizes(images: dict[str, FoundImage]) -> dict[str, tuple[int, int] | str]:
    """Return width and height of each image, or why it cannot be used."""

    def size(uri: str) -> tuple[int, int] | str:
        try:
            return upright_size(read_image_bytes(images[uri].folder, images[uri].path))
        except DataError as error:
            return str(error)

    return dict(zip(images, map_paths(size, images), strict=True))


def _size_fault(one: AnnotatedObject, size: tuple[int, int]) -> str:
    """Return what is wrong if a picture has another size than the one that was annotated."""
    if one.size is None or one.size == size:
        return ""
    turned = ", which is turned by its EXIF" if one.size == size[::-1] else ""
    annotated, given = ("{} x {}".format(*sides) for sides in (one.size, size))
    return f"labels and image do not match: annotated at {annotated} px, the file has {given} px{turned}"


def _inside(
    xy: NDArray[np.float64], size: tuple[int, int], names: tuple[str, ...]
) -> tuple[NDArray[np.float64], list[str]]:
    """Return points without those outside of the picture, and a reason for each of these."""
    last = np.array(size) - 0.5 + OUTSIDE_PX
    with np.errstate(invalid="ignore"):
        is_outside = np.logical_or.reduce((xy < -0.5 - OUTSIDE_PX) | (xy > last), axis=1)
    reasons = [
        f"point {names[k]} at {xy[k, 0]:.1f}, {xy[k, 1]:.1f} is outside of the picture of {size[0]} x {size[1]} px: not used"
        for k in np.flatnonzero(is_outside)
    ]
    return np.where(is_outside[:, None], np.nan, xy), reasons


def _never_annotated(names: tuple[str, ...], xy: NDArray[np.float64]) -> list[str]:
    lost = [name for k, name in enumerate(names) if not np.isfinite(xy[:, k]).all(axis=1).any()]
    return [f"annotated in no image: {', '.join(lost)}"] if lost else []
