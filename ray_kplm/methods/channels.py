"""The heatmap channels of a landmark detector, and stored states with fewer of them.

A channel is trained by one landmark of the pseudo-labels, or by several once channels have merged (thesis 5.2.2).
"""

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
from ray_kplm.storage import Folder

CHANNELS = "channels.json"
"""File of `Channels.to_dict` in the folder of the step that trains them."""
_HEAD = "landmarks.output."
"""Prefix of the weights of the landmark head's last layer."""


@dataclass(frozen=True)
class Channels:
    """The C channels of a landmark detector.

    Attributes:
        landmark_to_channel: int16 (L,), the channel of each landmark in the labels; NONE for landmarks that are left out.
        names: int16 (C,), the landmark that each channel was created for.
        flip_map: int16 (C,), the partner of each channel in the mirror image, or NONE.
        history: all merges so far, with channels given by their names.
    """

    landmark_to_channel: NDArray[np.int16]
    names: NDArray[np.int16]
    flip_map: NDArray[np.int16]
    history: tuple[Merged, ...] = ()

    @classmethod
    def first(cls, chosen: NDArray[np.bool_], flip_map: NDArray[np.int16] | None = None) -> Channels:
        """Return one channel for each of the chosen landmarks.

        Args:
            chosen: (L,) whether a landmark gets a channel.
            flip_map: (C,) partners of the channels. Without it, no channel has a partner.
        """
        names = np.flatnonzero(chosen).astype(np.int16)
        landmark_to_channel = np.full(len(chosen), NONE, np.int16)
        landmark_to_channel[names] = np.arange(len(names))
        return cls(landmark_to_channel, names, np.full(len(names), NONE, np.int16) if flip_map is None else flip_map)

    def __len__(self) -> int:
        return len(self.names)

    def merged(self, into: NDArray[np.int64], history: Sequence[Merged]) -> tuple[Channels, NDArray[np.int64]]:
        """Return the channels after a merge. They have no partners in the mirror image.

        Args:
            into: (C,) the channel that each channel is merged into, its own index if it stays (`correspondence.merging.merge`).
            history: the merges, with channels given by index.

        Returns:
            The new channels, and the indices of the old channels that stay, ascending.
        """
        stay = np.flatnonzero(into == np.arange(len(into)))
        new_index = np.full(len(into), NONE, np.int64)
        new_index[stay] = np.arange(len(stay))
        landmark_to_channel = np.where(
            self.landmark_to_channel == NONE, NONE, new_index[into[np.maximum(self.landmark_to_channel, 0)]]
        ).astype(np.int16)
        named = tuple(replace(m, channel=int(self.names[m.channel]), into=int(self.names[m.into])) for m in history)
        partners = np.full(len(stay), NONE, np.int16)
        return Channels(landmark_to_channel, self.names[stay], partners, self.history + named), stay

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `CHANNELS`."""
        return {
            "channels": len(self),
            "of": self.landmark_to_channel.tolist(),
            "names": self.names.tolist(),
            "flip_map": self.flip_map.tolist(),
            "history": [vars(merge) for merge in self.history],
        }

    @classmethod
    def read(cls, folder: Folder) -> Channels:
        """Return the channels in the folder of a detector. Raises DamageError if they cannot be read."""
        with folder.parsing(CHANNELS):
            return cls.from_dict(folder.read_object(CHANNELS))

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Channels:
        """Return the channels of a `to_dict`."""
        history = tuple(Merged(**merge) for merge in plain["history"])
        channel, names, flip_map = (np.array(plain[name], np.int16) for name in ("of", "names", "flip_map"))
        return cls(channel, names, flip_map, history)


def landmark_state(state: bytes) -> bytes:
    """Return the stored state of the `LandmarkNetwork` in that of a `JointNetwork`, without the optimiser's state."""
    joint = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)["network"]
    weights = {name: value for name, value in joint.items() if name.startswith(("backbone.", "landmarks."))}
    buffer = io.BytesIO()
    torch.save({"network": weights}, buffer)
    return buffer.getvalue()


def keep_channels(state: bytes, keep: NDArray[np.int64]) -> bytes:
    """Return a stored state (`methods.trainer`) whose landmark head has only the channels `keep`.

    The optimiser's state of these channels is kept, so that training continues.
    """
    stored = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    chosen = torch.from_numpy(np.asarray(keep))
    names = [name for name in stored["network"] if name.startswith(_HEAD)]
    channels = len(stored["network"][names[0]])
    for name in names:
        stored["network"][name] = stored["network"][name][chosen]
    # The head's last layer is also the last in the optimiser, see LandmarkObjective.parameter_groups.
    for index in sorted(stored["optimiser"]["state"])[-len(names) :]:
        parameter_state = stored["optimiser"]["state"][index]
        for name, value in parameter_state.items():
            if value.ndim and len(value) == channels:
                parameter_state[name] = value[chosen]
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    return buffer.getvalue()
