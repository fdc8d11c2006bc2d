"""What a file that holds a detector says about it. It needs no PyTorch, as reading an ONNX file does without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ray_kplm.errors import RunError

if TYPE_CHECKING:
    from ray_kplm.points.layout import Layout

KIND = "ray_kplm landmark detector"
"""Value of the key `kind` in such files."""
CITATION = (
    "Dimitrios Mallis, Unsupervised Landmark Discovery via Self-Training Correspondence, PhD thesis, University of Nottingham, "
    "2023, https://eprints.nottingham.ac.uk/72953/"
)
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
"""Forms that `kplm export` writes, and the ends of their files' names."""


@dataclass(frozen=True)
class FileMetadata:
    """What stands in a file beside the graph, a key each; values other than texts are JSON."""

    version: str
    """Of ray_kplm."""
    names: list[str]
    """Of the K points: landmarks, or what is made of them."""
    flip_map: list[int]
    """Mirror partner of each point, or -1."""
    skeleton: list[list[int]]
    """Pairs of points that are joined by a line; none in files of older versions."""
    image_size: int
    """Side of the network's input, pixels."""
    batch: int
    """Images that are computed at once unless the user says otherwise."""
    flip: bool
    """Whether heatmaps are averaged with those of the mirror image."""
    min_probability: float
    """Least probability of a landmark that is found, unless the user gives another."""
    has_probability: bool
    """Whether landmarks have probabilities; they are NaN otherwise."""
    has_facing: bool
    """Whether images are turned to face one way, and the way is given."""
    precision: str
    """fp32 or fp16, of the network."""
    fingerprint: str
    """Of the detector that was exported."""
    dataset: str
    """Name of the data set whose images the detector was trained on."""
    licence: str
    """What is known of the images' licence."""
    max_difference: float
    """Largest difference from the detector of the run when it was exported, pixels."""
    cite: str = CITATION
    kind: str = KIND

    @property
    def layout(self) -> Layout:
        """The points that the file predicts, without a name of the category."""
        from ray_kplm.points.layout import Layout  # here, as `kplm --help` needs no NumPy

        return replace(Layout.of("", self.flip_map, self.names), skeleton=tuple((a, b) for a, b in self.skeleton))

    def to_texts(self) -> dict[str, str]:
        """Return the metadata as texts."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def of_texts(cls, texts: Mapping[str, str], name: str) -> FileMetadata:
        """Return the metadata of a file.

        Raises:
            RunError: The file `name` was not written by `kplm export`, or by another version that wrote less.
        """
        if texts.get("kind") != KIND:
            raise RunError(f"{name}: holds no detector of ray_kplm; `kplm export RUN {name}` writes one")
        try:
            values: dict[str, Any] = {
                field.name: texts[field.name] if field.type == "str" else json.loads(texts[field.name])
                for field in fields(cls)
            }
        except (KeyError, ValueError) as error:
            raise RunError(f"{name}: its metadata is damaged ({error}); export the detector again") from None
        return cls(**values)
