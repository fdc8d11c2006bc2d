"""The channels of a landmark detector: which landmark of the labels trains which, and what becomes of them on the way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.correspondence.merging import Merged
from ray_kplm.schemas import NONE

CHANNELS = "channels.json"
"""In the folder of the step that trained them."""
_HEAD = "landmarks.output."


@dataclass(frozen=True)
class Channels:
    """landmark_to_channel: int16 (L,), the channel of each landmark in the labels, NONE: left out. names: int16 (C,), the
    landmark that each channel began as. flip_map: int16 (C,), a channel's partner in the mirror image or NONE.
    history: merges, by names."""

    landmark_to_channel: NDArray[np.int16]
    names: NDArray[np.int16]
    flip_map: NDArray[np.int16]
    history: tuple[Merged, ...] = ()

    @classmethod
    def first(cls, chosen: NDArray[np.bool_], flip_map: NDArray[np.int16] | None = None) -> Channels:
        """One for each of the chosen landmarks (L,); without a flip map none has a partner."""
        names = np.flatnonzero(chosen).astype(np.int16)
        of = np.full(len(chosen), NONE, np.int16)
        of[names] = np.arange(len(names))
        return cls(of, names, np.full(len(names), NONE, np.int16) if flip_map is None else flip_map)

    def __len__(self) -> int:
        return len(self.names)

    def merged(self, into: NDArray[np.int64], history: Sequence[Merged]) -> tuple[Channels, NDArray[np.int64]]:
        """After a merge (`correspondence.merging.merge`), and the channels that stay, ascending. Partners are not kept."""
        stay = np.flatnonzero(into == np.arange(len(into)))
        number = np.full(len(into), NONE, np.int64)
        number[stay] = np.arange(len(stay))
        of = np.where(
            self.landmark_to_channel == NONE, NONE, number[into[np.maximum(self.landmark_to_channel, 0)]]
        ).astype(np.int16)
        named = tuple(replace(m, channel=int(self.names[m.channel]), into=int(self.names[m.into])) for m in history)
        partners = np.full(len(stay), NONE, np.int16)
        return Channels(of, self.names[stay], partners, self.history + named), stay

    def to_dict(self) -> dict[str, Any]:
        return {
            "channels": len(self),
            "of": self.landmark_to_channel.tolist(),
            "names": self.names.tolist(),
            "flip_map": self.flip_map.tolist(),
            "history": [vars(merge) for merge in self.history],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Channels:
        history = tuple(Merged(**merge) for merge in plain["history"])
        channel, names, flip_map = (np.array(plain[name], np.int16) for name in ("of", "names", "flip_map"))
        return cls(channel, names, flip_map, history)


def landmark_state(state: bytes) -> bytes:
    """The landmark detector (`hourglass.LandmarkNetwork`) of a stored state of a `JointNetwork`; without an optimiser's."""
    found = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)["network"]
    weights = {name: value for name, value in found.items() if name.startswith(("backbone.", "landmarks."))}
    buffer = io.BytesIO()
    torch.save({"network": weights}, buffer)
    return buffer.getvalue()


def keep_channels(state: bytes, keep: NDArray[np.int64]) -> bytes:
    """A stored state (`methods.learner`) whose landmark head has only some of its channels; their optimiser state stays."""
    found = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    chosen = torch.from_numpy(np.asarray(keep))
    names = [name for name in found["network"] if name.startswith(_HEAD)]
    channels = len(found["network"][names[0]])
    for name in names:
        found["network"][name] = found["network"][name][chosen]
    # The head's output is the optimiser's last layer, see LandmarkObjective.parameter_groups.
    for number in sorted(found["optimiser"]["state"])[-len(names) :]:
        kept = found["optimiser"]["state"][number]
        for name, value in kept.items():
            if value.ndim and len(value) == channels:
                kept[name] = value[chosen]
    buffer = io.BytesIO()
    torch.save(found, buffer)
    return buffer.getvalue()
