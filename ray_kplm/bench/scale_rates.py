"""The rates that `kplm bench scale` computes with: each has a value, a unit, and where it comes from; kept as a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ray_kplm.errors import ConfigError

Origin = Literal["measured", "assumed"]


@dataclass(frozen=True)
class Rate:
    """A number of the model.

    Attributes:
        value: Its value, above 0.
        unit: Its unit.
        origin: Whether it was measured or assumed.
        source: The command and the CPU that it was measured on, or where an assumption comes from.
    """

    value: float
    unit: str
    origin: Origin
    source: str


UNITS: dict[str, str] = {
    # made on a core of a CPU
    "views": "views/s and core",
    "decoded": "images/s and core, decoded and scaled",
    "detected": "images/s and core, with their generic keypoints",
    "prepared": "images/s and core, in what extraction does beside the network: decoding, keypoints, writing",
    "fitted": "descriptors/s and core in a pass of K-means, mean over a fit",
    "clustered": "keypoints/s and core in all that clustering does beside the fits: reading, filters, labels",
    "trials": "s of one core for the starts of K-means that are compared",
    "labels": "images/s of labels read, one core",
    # processes and the driver
    "train_start": "s until new training workers take their first step",
    "train_next": "s between two trainings of the same workers",
    "map_start": "s until a new process that extracts has its network",
    "map_next": "s until a process that extracted before has its network",
    "cluster_start": "s until coordinator and shards have started",
    "part": "s of the driver for a part of a map",
    "call": "s for a call to a shard",
    # the network, on one device
    "train_flop": "FLOP/s of a training step",
    "forward_flop": "FLOP/s of extraction",
    "launch": "s to launch an operation of a step",
    "device_views": "views/s made on the device",
    "device_vectors_flop": "FLOP/s of the assignment on the device",
    "device_start": "s until a new process has its device",
    # between devices, and to storage
    "node_link": "bytes/s of an all-reduce inside a node",
    "network_link": "bytes/s of an all-reduce between nodes",
    "reduce_latency": "s of an all-reduce of nothing, for each doubling of the workers",
    "disk_bytes": "bytes/s of a node from a local disk",
    "disk_request": "s for a request to a local disk",
    "s3_bytes": "bytes/s of a node from S3",
    "s3_request": "s for a request to S3",
}
"""The rates of a machine and their units."""

_LAUNCH = "an eager operation of PyTorch with its Python, forward and backward; a CUDA graph needs far less"
ASSUMED: dict[str, tuple[float, str]] = {
    "train_flop": (0.10 * 989e12, "10 % of an H200's dense bf16 peak of 989 TFLOP/s (data sheet): group norm is eager"),
    "forward_flop": (0.10 * 989e12, "as a training step"),
    "launch": (1.5e-5, _LAUNCH),
    "device_views": (8_000.0, "one H200 would take 5,600 to 8,000 views/s of 256 px (calculated)"),
    "device_vectors_flop": (0.2 * 67e12, "20 % of an H200's fp32 peak of 67 TFLOP/s (data sheet)"),
    "device_start": (5.0, "CUDA context, libraries and the first kernels"),
    "node_link": (200e9, "NVLink of an H200, 450 GB/s each way (data sheet), less than half of it"),
    "network_link": (20e9, "400 Gbit/s InfiniBand shared by the devices of a node, less than half of it"),
    "reduce_latency": (2e-5, "NCCL"),
    "disk_bytes": (2e9, "an NVMe disk"),
    "disk_request": (2e-4, "an NVMe disk under a file system"),
    "s3_bytes": (1e9, "a node with 10 Gbit/s or more"),
    "s3_request": (3e-2, "the first byte of S3 in the same region takes some 30 ms"),
}
"""Values of rates that no CPU can measure, and their sources."""


@dataclass(frozen=True)
class Rates:
    """All rates of a machine, for one configuration of the network.

    Attributes:
        rates: By the names of `UNITS`.
        config: What they were measured for: the side of the input, the width of the network and so on.
    """

    rates: Mapping[str, Rate]
    config: Mapping[str, Any]

    def __getitem__(self, name: str) -> float:
        """Return the value of a rate."""
        return self.rates[name].value

    def names(self, origin: Origin) -> list[str]:
        """Return the names of the rates of an origin."""
        return [name for name, rate in self.rates.items() if rate.origin == origin]

    def with_measured(self, values: Mapping[str, float], source: str) -> Rates:
        """Return the rates with some of them replaced by measurements."""
        measured = {name: Rate(value, UNITS[name], "measured", source) for name, value in values.items()}
        return Rates({**self.rates, **measured}, self.config)

    def to_dict(self) -> dict[str, Any]:
        """Return the rates as plain dictionaries: the content of the file."""
        return {"config": dict(self.config), "rates": {name: asdict(rate) for name, rate in self.rates.items()}}

    def write(self, path: str) -> None:
        """Write the rates as a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def assumed_rates(config: Mapping[str, Any]) -> Rates:
    """Return the rates that are assumed, without those that are measured."""
    return Rates(
        {name: Rate(value, UNITS[name], "assumed", source) for name, (value, source) in ASSUMED.items()}, config
    )


def read_rates(path: str) -> Rates:
    """Read a file of rates. It may lack those of `ASSUMED`, which are then assumed.

    Raises:
        ConfigError: The file is missing or no JSON; a rate is missing, unknown, not a number above 0, or of no origin.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; kplm bench scale --save-rates FILE writes one") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); kplm bench scale --save-rates FILE writes one") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("rates"), dict):
        raise ConfigError(f'{path}: has no "rates"; kplm bench scale --save-rates FILE writes a file that has')
    known = assumed_rates(tree.get("config") or {})
    given = {name: _rate(path, name, entry) for name, entry in tree["rates"].items()}
    rates = Rates({**known.rates, **given}, known.config)
    missing = [name for name in UNITS if name not in rates.rates]
    if missing:
        raise ConfigError(
            f"{path}: lacks the rate {missing[0]} ({UNITS[missing[0]]}); add it, or measure without --rates"
        )
    return rates


def _rate(path: str, name: str, entry: Any) -> Rate:
    """Return a rate of a file."""
    if name not in UNITS:
        raise ConfigError(f"{path}: {name!r} is no rate; the rates are {', '.join(UNITS)}")
    entry = entry if isinstance(entry, dict) else {"value": entry}
    value, origin = entry.get("value"), entry.get("origin", "assumed")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{path}: {name} = {value!r}: must be a number above 0 ({UNITS[name]})")
    if origin not in get_args(Origin):
        raise ConfigError(f"{path}: {name}: origin {origin!r} must be measured or assumed")
    return Rate(float(value), UNITS[name], origin, str(entry.get("source", path)))
