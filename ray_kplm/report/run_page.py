"""The HTML report of a run: one self-contained file that loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from ray_kplm.evaluation.regression import cumulative_curve
from ray_kplm.evaluation.stages import STAGE_TITLES
from ray_kplm.imaging.draw import palette
from ray_kplm.points.point_set import PointSet
from ray_kplm.report import cards
from ray_kplm.report.charts import format_number, line_chart, scatter
from ray_kplm.report.choice_table import choice_line
from ray_kplm.report.edited_points import edit_line
from ray_kplm.report.headlines import headlines
from ray_kplm.report.mirror_images import MirrorImages
from ray_kplm.report.pictures import hex_colours
from ray_kplm.report.run_warnings import run_warnings
from ray_kplm.schemas import TRAIN


@dataclass(frozen=True)
class Embedding:
    """A two-dimensional embedding of the descriptors of one network.

    Attributes:
        title: Title of the picture.
        xy: (N, 2), in any unit.
        landmark: (N,), landmark of each descriptor, `NONE` for none.
    """

    title: str
    xy: NDArray[np.floating]
    landmark: NDArray[np.integer]


@dataclass(frozen=True)
class Evidence:
    """All data that a page presents.

    Attributes:
        run: Name of the run.
        dataset: Name of the dataset.
        kind: The method, `method.kind`.
        train_images: Number of images the landmarks were discovered in.
        split: Split of the findings.
        total: Number of its images.
        findings: Landmarks of these images.
        album: Pictures of the images chosen for the gallery.
        flip_map: (K,), mirror partner of each landmark, `NONE` for no partner.
        edited: The points that an edit made of the landmarks, if there is one.
        layout: Picture of the mean layout, URI; empty: none.
        quality: The content of `quality.json`, if it was measured.
        metrics: The content of `metrics.json`, if the run was scored.
        rounds: For each round a dictionary of numbers with the keys in `ROUND_CHARTS`.
        merges: For each merging of channels a dictionary: `before`, `after` and `merged` (`channel`, `into`, `overlap`).
        embeddings: Embeddings of descriptors.
        rejected: Number of files that could not be ingested.
        choice: The evidence for the number of landmarks, if it was chosen: `steps.choose.choose`.
        mirror: What mirror images are, if the run looked.
        facts: Further facts for the end of the page, name -> value.
        config: The resolved configuration as YAML.
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
    edited: PointSet | None = None
    layout: str = ""
    quality: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    rounds: Sequence[Mapping[str, Any]] = ()
    merges: Sequence[Mapping[str, Any]] = ()
    embeddings: Sequence[Embedding] = ()
    rejected: int = 0
    choice: Mapping[str, Any] | None = None
    mirror: MirrorImages | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    config: str = ""


ROUND_CHARTS = (
    ("Points per image", {"points_per_image": "landmarks", "training_points_per_image": "trained on"}),
    ("Loss at the end of a round", {"loss": "total", "detector": "detector"}),
    ("Descriptor loss, unweighted", {"descriptor": "descriptor"}),
    ("Mean squared distance to the centroid", {"landmark_objective": "K clusters", "cluster_objective": "M clusters"}),
    ("Equivariance error, % of the side", {"equivariance_error": "equivariance"}),
    ("Agreement with the last round, %", {"stability": "labels (NMI)", "found_again": "points in both"}),
)  # fmt: skip
"""For each chart its title, and the keys of a round's dictionary -> names of the lines."""


def build_page(evidence: Evidence) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=PackageLoader("ray_kplm.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = format_number
    findings, quality, metrics = evidence.findings, evidence.quality or {}, evidence.metrics or {}
    shown = cards.gallery(findings, evidence.album, evidence.edited)
    made = cards.landmark_cards(findings, evidence.album, evidence.flip_map, quality, metrics, evidence.edited)
    return environment.get_template("page.html").render(
        e=evidence,
        split={TRAIN: "training"}.get(evidence.split, evidence.split),
        colours=hex_colours(palette(findings.landmarks)),
        groups=cards.opening(shown),
        shown=len(shown),
        by_error=findings.errors is not None,
        cards=made,
        names=[card["point"].name for card in made],
        edit=edit_line(evidence.edited) if evidence.edited else "",
        tiles=headlines(quality, metrics, findings.landmarks),
        warnings=run_warnings(evidence.quality, evidence.metrics, images=evidence.total, rejected=evidence.rejected),
        choice=_choice_section(evidence.choice),
        round_charts=[*_round_charts(evidence.rounds), *_stage_chart(metrics)],
        round_table=_round_table(evidence.rounds),
        error_charts=_error_charts(metrics),
        stages=[(STAGE_TITLES[stage], scores) for stage, scores in _stages(metrics)],
        embeddings=[
            (e.title, len(e.xy), scatter(e.xy, e.landmark, title=_description(e))) for e in evidence.embeddings
        ],
        scores=[*_scalars("", quality), *_scalars("", metrics)],
    )


def _choice_section(choice: Mapping[str, Any] | None) -> tuple[str, Markup] | None:
    """Return the chosen numbers in one line, and the chart of the evidence; None if the number of landmarks was given."""
    if not choice or "rows" not in choice:
        return None
    lines = {"agreement": "two halves of the images", "chance": "by chance", "excess": "excess"}
    series = {name: [(i, row[key]) for i, row in enumerate(choice["rows"])] for key, name in lines.items()}
    names = {i: str(row["landmarks"]) for i, row in enumerate(choice["rows"])}
    title = "Agreement of clusterings, adjusted Rand index"
    return choice_line(choice), line_chart(series, title=title, x_label="landmarks, K", x_names=names)


def _round_charts(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    charts = []
    for title, lines in ROUND_CHARTS:
        series = {name: [(r["round"], r.get(key)) for r in rounds] for key, name in lines.items()}
        series = {name: points for name, points in series.items() if any(y is not None for _, y in points)}
        if series:
            charts.append((title, line_chart(series, title=title, x_label="round (0: warm-up)")))
    return charts


def _round_table(rounds: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the numbers of the charts as a table: headings and rows."""
    keys = {key: title for title, lines in ROUND_CHARTS for key in lines if any(r.get(key) is not None for r in rounds)}
    names = {key: name for _, lines in ROUND_CHARTS for key, name in lines.items()}
    rows = [
        [str(r["round"]), *(cards.NO_NUMBER if r.get(key) is None else format_number(r[key]) for key in keys)]
        for r in rounds
    ]  # fmt: skip
    return ["round", *(names[key] for key in keys)], rows


def _stages(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the scored stages with their scores, in the order of training."""
    stages = metrics.get("stages") or {}
    return [(stage, stages[stage]) for stage in STAGE_TITLES if stage in stages]


def _error_charts(metrics: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    stages = _stages(metrics)
    charts = []
    for direction, counted in (("forward", "annotated"), ("backward", "discovered")):
        series = {}
        for stage, scores in stages:
            errors = [np.nan if e is None else e for e in scores.get(f"{direction}_per_landmark") or []]
            running = cumulative_curve(errors)
            if len(running):
                series[STAGE_TITLES[stage]] = list(enumerate(running.tolist(), start=1))
        if series:
            title = f"Cumulative {direction} error, % of the normaliser"
            charts.append((title, line_chart(series, title=title, x_label=f"{counted} landmarks, best first")))
    return charts


def _stage_chart(metrics: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Return the chart of both errors by stage, if more than one stage was scored."""
    stages = _stages(metrics)
    if len(stages) < 2:
        return []
    series = {
        direction: [(i, scores.get(f"{direction}_nme")) for i, (_, scores) in enumerate(stages)]
        for direction in ("forward", "backward")
    }
    names = {i: STAGE_TITLES[stage] for i, (stage, _) in enumerate(stages)}
    title = "NME, %"
    return [(title, line_chart(series, title=title, x_label="evaluated after", x_names=names))]


def _description(embedding: Embedding) -> str:
    """Return what an embedding shows, for screen readers."""
    groups = len(np.unique(embedding.landmark))
    return f"{embedding.title}: {len(embedding.xy)} descriptors of {groups} landmarks in the plane"


def _scalars(prefix: str, table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return all numbers of a nested dictionary with dotted names, without lists and the stages, which are shown elsewhere."""
    scalars = []
    for name, value in table.items():
        if isinstance(value, Mapping) and name not in ("stages", "per_image"):
            scalars += _scalars(f"{prefix}{name}.", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            scalars.append((f"{prefix}{name}", format_number(value)))
    return scalars
