"""The files of a published data set in its authors' layout: lookup, parsing, and the resulting listing."""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.file_kinds import extension_of, picture_extensions
from ray_kplm.datasets.ingest_source import Opener, ReadAnnotation, Sample, SampleReader, box_fault, open_image
from ray_kplm.datasets.readers.text_lists import Rows, read_rows
from ray_kplm.datasets.source_files import list_files, read_file
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

T = TypeVar("T")
PICTURES = picture_extensions()
"""Extensions of pictures that can be decoded."""


@dataclass(frozen=True)
class Distribution:
    """The origin of a data set."""

    name: str
    url: str
    terms: str
    """Licence in a few words; the full text is on the authors' page."""


class Layout:
    """A source folder of one published data set. Every file that is read or listed is part of the listing's identity."""

    def __init__(self, source: Folder, distribution: Distribution, options: IngestOptions) -> None:
        """Begin a listing of the source.

        Raises:
            DataError: The options name annotation files, which are for a folder of images.
        """
        if options.boxes or options.landmarks or options.sequences:
            raise DataError(
                f"{distribution.name} has its own annotation; --boxes, --landmarks and --sequences are for a folder of images"
            )
        self.source = source
        self.distribution = distribution
        self.options = options
        self.rejected: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._matches: list[str] = []
        self._files: dict[str, str] = {}  # by the name in NFC
        self._missing = 0
        self._identity = hashlib.sha256(distribution.name.encode())

    def locate(self, *candidates: str, origin: Distribution | None = None) -> str:
        """Return the first of these paths that exists.

        Args:
            *candidates: Paths below the source.
            origin: The distribution that the file belongs to, if it is not the data set's own.

        Raises:
            DataError: None exists. The message says what to download, from where and under which terms.
        """
        for path in candidates:
            if self.source.exists(path):
                return path
        needed = origin or self.distribution
        places = " or ".join(dict.fromkeys(candidates))
        raise DataError(
            f"{self.source} has no {places}; download {needed.name} from {needed.url} (terms: {needed.terms}) and put it there"
        )

    def has_folder(self, path: str) -> bool:
        """Return whether there is a folder of this path."""
        return self.source.exists(path) and not self.source.is_file(path)

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            DataError: It cannot be read.
        """
        try:
            content = read_file(self.source, path)
        except DataError as error:
            raise DataError(f"{self.source}/{path}: {error}") from None
        self._identity.update(f"{path}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        return content

    def rows(self, path: str, *, skip: int = 0, least: int = 1) -> Rows:
        """Return the lines of a text file as words, without empty lines and headings.

        Args:
            path: Of the file.
            skip: Greatest number of headings at the start.
            least: Number of words that a line needs; shorter lines are rejected.
        """
        rows = read_rows(self.read(path), skip)
        for words in rows:
            if len(words) < least:
                self.reject(f"{path}: {words[0]}", f"bad annotation: {len(words)} values in a line of {least}")
        return [words for words in rows if len(words) >= least]

    def table(self, path: str, *, skip: int = 0, least: int = 1) -> dict[str, list[str]]:
        """Return the lines of a text file by their first word. Of several with the same word, the first one counts."""
        table: dict[str, list[str]] = {}
        for words in self.rows(path, skip=skip, least=least):
            if table.setdefault(words[0], words[1:]) != words[1:]:
                self.reject(words[0], f"repeated: {path} has other values for it in a later line, which are not used")
        return table

    def names(self, path: str) -> list[str]:
        """Return the first word of each line of a text file."""
        return [row[0] for row in self.rows(path)]

    def mat(self, path: str) -> dict[str, Any]:
        """Return the variables of a MATLAB file."""
        return parse_mat(self.read(path), f"{self.source}/{path}")

    def json(self, path: str) -> Any:
        """Return the content of a JSON file."""
        content = self.read(path)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.source}/{path} is no JSON: {error}; make or download it again") from None

    def files(self, folder: str, extensions: Iterable[str] = PICTURES) -> list[str]:
        """Return the sorted paths, below the source, of the files with these extensions at any depth of `folder`.

        `listing` rejects samples whose picture was not listed here. Hidden files do not exist.
        """
        kinds = frozenset(extensions)
        files, faults = list_files(self.source, folder)
        listed = [file for file in files if extension_of(file.path) in kinds]
        for file in listed:
            self._identity.update(f"{file.path}\0{file.size}\0{file.modified_ns}\n".encode())
        for fault in faults:
            if (fault.is_folder or extension_of(fault.path) in kinds) and fault[:2] not in self.rejected:
                self.reject(fault.path, fault.reason)
        paths = [file.path for file in listed]
        self._files.update((_canonical(path), path) for path in paths)
        self._files.update((path, path) for path in paths)
        return paths

    def find(self, path: str) -> str | None:
        """Return the path of a listed file that is called so, also if its name composes accents in another way."""
        return self._files.get(path) or self._files.get(_canonical(path))

    def splits_of(self, lists: dict[str, list[T]]) -> dict[T, str]:
        """Return the split of each id that lists name; an id in the lists of both splits is used for testing alone."""
        both = set(lists[TRAIN]) & set(lists[TEST])
        if both:
            self.notes.append(f"in the lists of both splits: {len(both)}, used for testing alone")
        return {item: split for split in (TRAIN, TEST) for item in lists[split]}

    def match(self, name: str, matched: int, of: int) -> None:
        """Say how many of a list's ids were found, for the report."""
        self._matches.append(f"{name} {matched} of {of}")

    def decided(self, text: str) -> None:
        """Make a decision part of the identity, which otherwise follows from the files."""
        self._identity.update(f"{text}\n".encode())

    def reject(self, what: str, reason: str) -> None:
        """Add an input that is not used."""
        self.rejected.append((what, reason))

    def listing(
        self,
        splits: dict[str, list[Sample]],
        landmark_names: Sequence[str],
        nme: dict[str, Any],
        *,
        swap_pairs: list[list[int]] | None = None,
        read_annotation: ReadAnnotation | None = None,
        opener: Opener = open_image,
    ) -> Listing:
        """Return the listing for ingest; samples are sorted by their pictures.

        Args:
            splits: Samples of each split. Those without a picture or with a bad box are rejected.
            landmark_names: Names of the landmarks.
            nme: The normaliser of the evaluation's errors.
            swap_pairs: Landmarks that a mirror image exchanges; None: those whose names say so (`mirror_pairs`).
            read_annotation: Adds the annotation from a sample's own file.
            opener: Opens the pictures.
        """
        count = len(landmark_names)
        meta = {
            "name": self.distribution.name,
            "landmark_names": list(landmark_names),
            "swap_pairs": mirror_pairs(landmark_names) if swap_pairs is None else swap_pairs,
            "nme": nme,
            "licence": self.distribution.terms,
            "homepage": self.distribution.url,
        }
        total = sum(map(len, splits.values()))
        kept = {split: self._usable(samples) for split, samples in splits.items()}
        sequences = any(sample.frame is not None for samples in kept.values() for sample in samples)
        read_part = SampleReader(self.source, self.options, count, read_annotation, opener).read_part
        self.match("pictures", total - self._missing, total)
        notes = (*self.notes, f"matched: {', '.join(self._matches)}")
        return Listing(kept, read_part, self._identity.hexdigest(), meta, count, sequences, self.rejected, notes=notes)

    def _usable(self, samples: list[Sample]) -> list[Sample]:
        """Return the sorted samples that have a picture and no bad box, and reject the others."""
        kept = []
        for sample in sorted(samples, key=_order):
            path = self.find(sample.path)
            fault = f"missing: no picture {sample.path}" if path is None else None
            self._missing += path is None
            for box in (sample.box, sample.window):
                fault = fault or (box_fault(box) if box is not None else None)
            if fault is None:
                kept.append(sample._replace(path=path or sample.path))
            else:
                self.reject(sample.image_id, fault)
        return kept


def _canonical(name: str) -> str:
    """Return a name with its accents composed (NFC), as it may be written in two ways that look the same."""
    return unicodedata.normalize("NFC", name)


def _order(sample: Sample) -> tuple[str, int, str]:
    """Return the sort key of a sample: path, frame, name."""
    return sample.path, sample.frame[1] if sample.frame else 0, sample.image_id


def parse_mat(content: bytes, name: str) -> dict[str, Any]:
    """Return the variables of a MATLAB file of version 5 to 7.

    Raises:
        DataError: The file cannot be read.
    """
    from scipy.io import loadmat  # not needed to predict

    try:
        variables: dict[str, Any] = loadmat(io.BytesIO(content))
    except Exception as error:  # on damaged files scipy raises exceptions of many kinds
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"unreadable annotation: {name} is no MATLAB file of version 5: {message}") from None
    return variables


def mirror_pairs(names: Sequence[str]) -> list[list[int]]:
    """Return pairs of landmarks that a mirror image exchanges: those whose names differ only in left and right."""
    places = {name: index for index, name in enumerate(names)}
    partners = [places.get(_exchanged(name), index) for index, name in enumerate(names)]
    return [[index, partner] for index, partner in enumerate(partners) if index < partner]


def _exchanged(name: str) -> str:
    """Return the name with left and right exchanged."""
    return re.sub("left|right", lambda side: "right" if side.group() == "left" else "left", name)


def interlandmark_distance(names: Sequence[str], left: str, right: str) -> dict[str, Any]:
    """Return the normaliser that is the distance between two landmarks (thesis 2.7: the eyes, the shoulders)."""
    return {"type": "interocular", "left": [names.index(left)], "right": [names.index(right)]}


BOX_SIZE = {"type": "bbox_sqrt"}
"""The normaliser sqrt(width * height) of the box (thesis 2.7)."""


def parse_numbers(words: Iterable[str]) -> list[float]:
    """Return words of an annotation file as numbers, or raise DataError."""
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"bad annotation: {error}") from None


def parse_points(values: Any, count: int, name: str) -> NDArray[np.float64]:
    """Return numbers of the annotation file `name` as points (count, 2), or raise DataError."""
    try:
        xy = np.asarray(values, dtype=np.float64).reshape(count, 2)
    except (ValueError, TypeError):
        raise DataError(f"bad annotation: {name} has not {count} points x, y") from None
    return xy
