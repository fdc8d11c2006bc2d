"""One self-contained HTML page about a run: no network, no files beside it, nothing to install."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from ray_kplm.evaluation.regression import cumulative_curve
from ray_kplm.imaging.draw import palette
from ray_kplm.report import cards
from ray_kplm.report.charts import line_chart, number, scatter
from ray_kplm.report.pictures import hex_colours
from ray_kplm.report.run_warnings import warnings
from ray_kplm.schemas import TRAIN

STAGES = {"warmup": "warm-up", "stage1": "stage 1", "stage2": "stage 2"}


@dataclass(frozen=True)
class Embedding:
    """Descriptors of one network in the plane: title, xy (N, 2), and the landmark of each, (N,)."""

    title: str
    xy: NDArray
    landmark: NDArray


@dataclass(frozen=True)
class Evidence:
    """All that a page is made of.

    run, dataset: names. kind: the generation. train_images: those that discovery saw; split: of the findings, `total` images in
    all. quality, metrics: as `quality.json` and `metrics.json` hold them. flip_map: mirror partners (K,), -1: none. rounds: a
    dict of numbers for each round, see `ROUND_CHARTS`. merges: a dict for each merging: before, after, merged (channel, into,
    overlap). facts: what else stands at the foot, name -> value. config: the resolved YAML.
    """

    run: str
    dataset: str
    kind: str
    train_images: int
    split: str
    total: int
    findings: cards.Findings
    album: cards.Album
    flip_map: Sequence[int]
    quality: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    rounds: Sequence[Mapping[str, Any]] = ()
    merges: Sequence[Mapping[str, Any]] = ()
    embeddings: Sequence[Embedding] = ()
    rejected: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    config: str = ""


ROUND_CHARTS = (
    ("Points per image", {"points_per_image": "landmarks", "training_points_per_image": "trained on"}),
    ("Loss at the end of a round", {"loss": "in all", "detector": "detector"}),
    ("Descriptor loss, unweighted", {"descriptor": "descriptor"}),
    ("Mean squared distance to the centroid", {"landmark_objective": "K clusters", "cluster_objective": "M clusters"}),
    ("Equivariance error, % of the side", {"equivariance_error": "equivariance"}),
    ("Agreement with the last round, %", {"stability": "labels (NMI)", "found_again": "points found again"}),
)  # fmt: skip
"""Title, and key of a round's dict -> name of the line."""


def build_page(evidence: Evidence) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("ray_kplm.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["figure"] = number
    findings, quality, metrics = evidence.findings, evidence.quality or {}, evidence.metrics or {}
    shown = cards.gallery(findings, evidence.album)
    return environment.get_template("page.html").render(
        e=evidence,
        split={TRAIN: "training"}.get(evidence.split, evidence.split),
        colours=hex_colours(palette(findings.landmarks)),
        groups=cards.opening(shown),
        shown=len(shown),
        by_error=findings.errors is not None,
        cards=cards.landmark_cards(findings, evidence.album, evidence.flip_map, quality, metrics),
        tiles=_tiles(evidence),
        warnings=warnings(evidence.quality, evidence.metrics, images=evidence.total, rejected=evidence.rejected),
        round_charts=[*_round_charts(evidence.rounds), *_stage_chart(metrics)],
        round_table=_round_table(evidence.rounds),
        error_charts=_error_charts(metrics),
        stages=[(STAGES.get(stage, stage), scores) for stage, scores in _stages(metrics)],
        embeddings=[(e.title, len(e.xy), scatter(e.xy, e.landmark, title=_spoken(e))) for e in evidence.embeddings],
        scores=[*_scalars("", quality), *_scalars("", metrics)],
    )


def _tiles(evidence: Evidence) -> list[tuple[str, str, str]]:
    """The headline numbers: name, value, what it means."""
    quality, metrics = evidence.quality or {}, evidence.metrics or {}
    tiles = []
    if metrics.get("forward_nme") is not None:
        guess = metrics.get("mean_shape_nme")
        beside = "" if guess is None else f"; the mean shape alone: {number(guess)} %"
        tiles.append(("Forward NME", f"{number(metrics['forward_nme'])} %", f"annotated points told from ours{beside}"))
    if metrics.get("backward_nme") is not None:
        text = "our points told from the annotated ones; low: they stand still on the object"
        tiles.append(("Backward NME", f"{number(metrics['backward_nme'])} %", text))
    for name, key, factor, meaning in _HEADLINES:
        if quality.get(key) is not None:
            tiles.append((name, f"{number(quality[key] * factor)} %", meaning))
    if quality.get("static_landmarks") is not None:
        still = len(quality["static_landmarks"])
        tiles.append(
            (
                "Standing still",
                f"{still} of {evidence.findings.landmarks}",
                "landmarks that do not move with the object",
            )
        )
    if quality.get("score") is not None:
        tiles.append(
            ("Label-free score", number(quality["score"]), "all of it in one number, for sweeps; the lower the better")
        )
    return tiles


_HEADLINES = (
    ("Detection rate", "detection_rate", 100, "landmarks found, over all images"),
    ("Equivariance", "equivariance_error", 1, "of the side: how far a landmark is off when the image is warped"),
    ("Mirror error", "flip_error", 1, "of the side: how far image and mirror image disagree"),
    ("Coverage", "coverage", 1, "of the side: how far the landmarks of an image are from their middle"),
)


def _round_charts(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    found = []
    for title, lines in ROUND_CHARTS:
        series = {name: [(r["round"], r.get(key)) for r in rounds] for key, name in lines.items()}
        series = {name: points for name, points in series.items() if any(y is not None for _, y in points)}
        if series:
            chart = line_chart(series, title=title, x_label="round (0: warm-up)")
            found.append((title, chart))
    return found


def _round_table(rounds: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The same as numbers: heads and rows."""
    keys = {key: title for title, lines in ROUND_CHARTS for key in lines if any(r.get(key) is not None for r in rounds)}
    names = {key: name for _, lines in ROUND_CHARTS for key, name in lines.items()}
    rows = [
        [str(r["round"]), *(cards.NO_NUMBER if r.get(key) is None else number(r[key]) for key in keys)]
        for r in rounds
    ]  # fmt: skip
    return ["round", *(names[key] for key in keys)], rows


def _stages(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Scores of what was evaluated, in the order of work."""
    stages = metrics.get("stages") or {}
    return [(stage, stages[stage]) for stage in STAGES if stage in stages]


def _error_charts(metrics: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    stages = _stages(metrics)
    charts = []
    for direction, counted in (("forward", "annotated"), ("backward", "discovered")):
        series = {}
        for stage, scores in stages:
            errors = [np.nan if e is None else e for e in scores.get(f"{direction}_per_landmark") or []]
            running = cumulative_curve(errors)
            if len(running):
                series[STAGES[stage]] = list(enumerate(running.tolist(), start=1))
        if series:
            title = f"Cumulative {direction} error, % of the normaliser"
            charts.append((title, line_chart(series, title=title, x_label=f"{counted} landmarks, best first")))
    return charts


def _stage_chart(metrics: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Both errors from the warm-up to the last stage, where more than one was evaluated."""
    stages = _stages(metrics)
    if len(stages) < 2:
        return []
    series = {
        direction: [(i, scores.get(f"{direction}_nme")) for i, (_, scores) in enumerate(stages)]
        for direction in ("forward", "backward")
    }
    names = {i: STAGES[stage] for i, (stage, _) in enumerate(stages)}
    title = "NME, %"
    return [(title, line_chart(series, title=title, x_label="evaluated after", x_names=names))]


def _spoken(embedding: Embedding) -> str:
    groups = len(np.unique(embedding.landmark))
    return f"{embedding.title}: {len(embedding.xy)} descriptors of {groups} landmarks in the plane"


def _scalars(prefix: str, table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All single numbers of a nested dict, with dotted names; lists and the stages, which are shown elsewhere, are left out."""
    found = []
    for name, value in table.items():
        if isinstance(value, Mapping) and name not in ("stages", "per_image"):
            found += _scalars(f"{prefix}{name}.", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((f"{prefix}{name}", number(value)))
    return found
