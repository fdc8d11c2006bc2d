"""The result of `kplm check` as text, and what its page shares with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_kplm.report.text_table import align

VERDICTS = {
    "suitable": "these images suit the discovery of landmarks",
    "risky": "it may work: mind what follows",
    "unsuitable": "landmarks will not be found in these images as they are",
}
"""What a verdict means."""


def check_table(figures: Mapping[str, Any], config: str, dataset: str) -> str:
    """Return the verdict, its reasons with the ways out, the other findings, and what to train with.

    Args:
        figures: See `analysis.check_dataset.Check.figures`.
        config: Name of the configuration that was timed.
        dataset: Where the dataset is.
    """
    images = ", ".join(f"{count:,} {split}" for split, count in figures["images"].items())
    lines = [f"{figures['dataset']}: {images} images; {figures['sample']:,} looked at closely", ""]
    lines.append(f"{figures['verdict'].upper()}: {VERDICTS[figures['verdict']]}")
    for one in figures["findings"]:
        if one["level"] != "suitable":
            lines += [f"  {one['level']}, {one['name']}: {one['text']}", f"    do: {one['way_out']}"]
    rows = [["", "measured", "bound", ""]]
    for one in figures["findings"]:
        rows.append([one["name"], number(one["figure"]), number(one["bound"]), one["text"]])
    lines += ["", *align(rows, left=(0, 3)), "", *suggestion_lines(figures["suggested"], config)]
    if figures["verdict"] != "unsuitable" and (line := next_command(figures["suggested"], config, dataset)):
        lines.append(f"next: {line}")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Return a figure as text."""
    if value is None:
        return "-"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"


def suggestion_lines(suggested: Mapping[str, Any], config: str) -> list[str]:
    """Return what to train with, a line each."""
    if suggested["landmarks"] is None:
        return [f"no suggestion: {'; '.join(suggested['doubts'])}"]
    low, high = suggested["range"]
    lines = [
        f"suggested: K = {suggested['landmarks']} ({low} to {high} over other splits), M = {suggested['clusters']}, "
        f"image size {suggested['image_size']} px; `kplm choose` compares more images"
    ]
    lines += [f"  unsure: {doubt}" for doubt in suggested["doubts"]]
    training = suggested["training"]
    if training:
        parts = ", ".join(
            f"{name} {training[key] / 60:.0f} min"
            for name, key in (("stage 1", "stage1"), ("stage 2", "stage2"), ("extraction", "extraction"))
        )
        lines.append(f"time of {config} on this machine: {training['hours']:.1f} h ({parts}), by steps timed now")
    return lines


def next_command(suggested: Mapping[str, Any], config: str, dataset: str) -> str | None:
    """Return the command that trains with the suggestions; None without them."""
    if suggested["landmarks"] is None:
        return None
    numbers = " ".join(
        f"{path}={suggested[name]}"
        for path, name in (
            ("method.landmarks", "landmarks"), ("method.clusters", "clusters"), ("network.image_size", "image_size")
        )
    )  # fmt: skip
    return f"kplm train {config} dataset={dataset} run=NEW {numbers}"
