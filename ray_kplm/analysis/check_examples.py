"""The page of `kplm check`, with pictures of what was found."""

from __future__ import annotations

from typing import Any

from ray_kplm.analysis.check_dataset import Check, pictures_of
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.report.check_page import build_page, example


def check_page(check: Check, figures: dict[str, Any], dataset: str, config: str) -> str:
    """Return the page as HTML.

    Args:
        check: What was found.
        figures: Its `figures`.
        dataset: Where the dataset is.
        config: Name of the configuration that was timed.
    """
    opened, examples = Dataset.open(dataset), {}
    for name, chosen in check.examples.items():
        images = pictures_of(opened, [row for _, row, _ in chosen])
        examples[name] = [
            example(caption, image, boxes) for (caption, _, boxes), image in zip(chosen, images, strict=True)
        ]
    return build_page(figures, examples, dataset, config)
