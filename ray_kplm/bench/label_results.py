"""The results of `kplm bench labels` on storage, and their table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_kplm.errors import ConfigError
from ray_kplm.report.figures import errors_by_labels
from ray_kplm.report.text_table import NO_VALUE, align
from ray_kplm.storage import Folder

REGRESSION, HEAD, SCRATCH = "regression", "head", "scratch"
METHODS = (REGRESSION, HEAD, SCRATCH)
"""The map from the landmarks, a new head on the frozen backbone, a network that is trained on the labels alone."""
TITLES = {REGRESSION: "map from the landmarks", HEAD: "head on frozen backbone", SCRATCH: "network from scratch"}
RESULTS, PLOT = "labels.json", "labels.png"
_ITERATIONS = "iterations.json"

Row = dict[str, Any]
"""points (the kind), method, labels, seeds, mean, sd (percent; None for one seed)."""


@dataclass(frozen=True)
class HalfWay:
    """A training on storage that is not finished, so that it can be continued: its state, and the scores so far.

    Attributes:
        out: Folder of the results.
        key: The measurement, see `cell_key`.
    """

    out: Folder
    key: str

    @property
    def _folder(self) -> Folder:
        return self.out / "unfinished" / self.key.replace(" ", "_")

    def read(self) -> tuple[int, bytes | None, list[dict[str, Any]]]:
        """Return the iterations done, the stored state of the learner, and the scores; zero iterations if there is none."""
        if not self._folder.is_file(_ITERATIONS):
            return 0, None, []
        about = self._folder.read_object(_ITERATIONS)
        return about["done"], self._folder.read_bytes(f"{about['done']}.pt"), about["scores"]

    def write(self, done: int, state: bytes, scores: list[dict[str, Any]]) -> None:
        """Replace what is on storage."""
        self._folder.write_bytes(f"{done}.pt", state)
        self._folder.write_json(_ITERATIONS, {"done": done, "scores": scores})
        for name in self._folder.names(suffix=".pt"):
            if name != f"{done}.pt":
                self._folder.delete_file(name)

    def delete(self) -> None:
        """Remove what is on storage."""
        self._folder.delete()


def cell_key(method: str, count: int, seed: int, iterations: int) -> str:
    """Return the name of a measurement in the results."""
    return f"{method} {count} labels seed {seed}" + (f" {iterations} iterations" if iterations else "")


def stored_results(out: Folder, about: dict[str, Any]) -> dict[str, Any]:
    """Return the results in a folder, which are continued, or empty ones.

    Args:
        out: The folder.
        about: What results depend on.

    Raises:
        ConfigError: They are of another run, dataset or groups.
    """
    if not out.is_file(RESULTS):
        return {**about, "cells": {}}
    stored = out.read_object(RESULTS)
    changed = [name for name, value in about.items() if stored.get(name) != value]
    if changed or not isinstance(stored.get("cells"), dict):
        raise ConfigError(f"--out {out}: has results of another {', '.join(changed) or 'kind'}; give another folder")
    return stored


def add_results(out: Folder, about: dict[str, Any], cells: dict[str, Any]) -> dict[str, Any]:
    """Add measurements to those in a folder, where another process may have added some, plot all, and return all.

    Raises:
        ConfigError: see `stored_results`.
    """
    results = stored_results(out, about)
    results["cells"] |= cells
    out.write_json(RESULTS, results)
    rows = table(results["cells"].values())
    curves: dict[str, dict[str, tuple[list[int], list[float], list[float]]]] = {}
    for kind, count in results["points"].items():
        for method in METHODS:
            of = [row for row in rows if row["points"] == kind and row["method"] == method]
            if of:
                values = [row["labels"] for row in of], [row["mean"] for row in of], [row["sd"] or 0.0 for row in of]
                curves.setdefault(f"{count} points", {})[TITLES[method]] = values
    if curves:
        out.write_bytes(PLOT, errors_by_labels(curves))
    return results


def table(cells: Iterable[dict[str, Any]]) -> list[Row]:
    """Return a row for each kind of points, method and number of labels, over its seeds.

    Of trainings of different lengths, the longest counts.
    """
    found: dict[tuple[str, str, int], dict[int, tuple[int, float]]] = {}
    for one in cells:
        for kind, value in one["nme"].items():
            seeds = found.setdefault((kind, one["method"], one["labels"]), {})
            if one["seed"] not in seeds or seeds[one["seed"]][0] < one["iterations"]:
                seeds[one["seed"]] = one["iterations"], value
    rows = []
    for (kind, method, count), seeds in sorted(found.items()):
        values = [value for _, value in seeds.values()]
        rows.append(
            {
                "points": kind, "method": method, "labels": count, "seeds": len(values), "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
        )  # fmt: skip
    return rows


def lines(results: dict[str, Any]) -> list[str]:
    """Return the table as text."""
    rows = [["test NME, %", "labels", *TITLES.values()]]
    for kind, count in results["points"].items():
        for number, by_method in _by_count(results["table"], kind):
            rows.append([f"{count} points", str(number), *(_text(by_method.get(method)) for method in METHODS)])
    means = ", ".join(
        f"{results['mean_shape'][kind]:.1f} for {count} points" for kind, count in results["points"].items()
    )
    return [*align(rows), f"Mean shape of all training images: {means}."]


def _by_count(rows: Sequence[Row], kind: str) -> Iterator[tuple[int, dict[str, Row]]]:
    of = [row for row in rows if row["points"] == kind]
    for count in sorted({row["labels"] for row in of}):
        yield count, {row["method"]: row for row in of if row["labels"] == count}


def _text(row: Row | None) -> str:
    if row is None:
        return NO_VALUE
    return f"{row['mean']:.1f}" + (f" ± {row['sd']:.1f}" if row["sd"] is not None else "")
