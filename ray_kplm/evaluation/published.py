"""Scores published in the thesis, its own and those it quotes, by protocol.

Names of figures are those of `protocol_scores.protocol_scores`. NME, accuracy and PCK are in percent, AP and AR from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Published scores of one method.

    Attributes:
        method: The method's name, and K where the thesis gives it.
        source: The table of the thesis.
        figures: Name -> score.
    """

    method: str
    source: str
    figures: Mapping[str, float]


def _nme(method: str, table: str, value: float) -> Published:
    return Published(method, f"Table {table}", {"forward_nme/all": value})


def _grouped(metric: str, names: str, values: str) -> dict[str, float]:
    """Return the figures of `Head Shoulders` and `97.89 49.65`; a value more than there are names is the average."""
    keys = [*names.split(), "average"]
    return {f"{metric}/{key}": float(value) for key, value in zip(keys, values.split(), strict=False)}


_BBCPOSE = "Head Shoulders Elbows Hands"
_HUMAN = "Head Shoulders Elbows Waist Knees Legs"
_PENN = "Head Shoulders Elbows Hands Waist Knees Legs"


def _human36m(method: str, accuracy: str, pck: str, oks: str) -> Published:
    names = ("AP", "AP_0.5", "AP_0.4", "AR", "AR_0.5", "AR_0.4")
    return Published(
        method,
        "Table 6.11",
        {
            **_grouped("raw_accuracy", _HUMAN, accuracy),
            **_grouped("pck", _HUMAN, pck),
            **{f"oks/{name}": float(value) for name, value in zip(names, oks.split(), strict=True)},
        },
    )


def _bbcpose(
    method: str, source: str, values: str, metric: str = "regressed_accuracy", points: float | None = None
) -> Published:
    """Return a row of BBCPose scores; `points` is the mean over points instead of groups, see `matching.by_group`."""
    of_points = {} if points is None else {f"{metric}/points": points}
    return Published(method, source, {**_grouped(metric, _BBCPOSE, values), **of_points})


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "mafl": (
        _nme("chapter 6, K=10", "6.7", 3.83),
        _nme("chapter 6, K=30", "6.5", 3.25),
        _nme("chapter 5, K=49", "6.7", 4.12),
        _nme("chapter 4, K=13", "6.7", 4.18),
        _nme("Jakab, K=10", "6.7", 3.19),
        _nme("Lorenz, K=10", "6.7", 3.24),
        _nme("Zhang, K=10", "6.7", 3.46),
        _nme("Sanchez, K=10", "6.7", 3.99),
        _nme("Shu", "6.7", 5.45),
        _nme("Sahasrabudhe", "6.7", 6.01),
    ),
    "aflw": (
        _nme("chapter 6, K=10", "6.7", 7.18),
        _nme("chapter 5", "5.1", 7.37),
        _nme("chapter 4, K=13", "6.7", 7.42),
        _nme("Sanchez, K=10", "6.7", 6.69),
        _nme("Jakab, K=10", "6.7", 6.86),
        _nme("Zhang, K=10", "6.7", 7.01),
    ),
    "ls3d": (
        Published(
            "chapter 6, K=30",
            "Tables 6.5, 6.6",
            {
                "forward_nme/all": 5.26,
                "forward_nme/|yaw| 0 to 30": 4.42,
                "forward_nme/|yaw| 30 to 60": 5.07,
                "forward_nme/|yaw| 60 to 90": 6.51,
            },
        ),
        Published(
            "the same, trained on CelebA",
            "Table 6.6",
            {
                "forward_nme/all": 6.95,
                "forward_nme/|yaw| 0 to 30": 5.86,
                "forward_nme/|yaw| 30 to 60": 6.21,
                "forward_nme/|yaw| 60 to 90": 9.20,
            },
        ),
        _nme("chapter 6, K=30, stage 1", "6.5", 7.95),
    ),
    "catheads": (
        _nme("chapter 6, K=20", "6.8", 9.31),
        _nme("Lorenz, K=20", "6.8", 9.30),
        _nme("Zhang, K=20", "6.8", 14.84),
        _nme("Thewlis, K=20", "6.8", 26.94),
    ),
    "bbcpose": (
        _bbcpose("chapter 6, with flow", "Table 6.9", "97.89 49.65 71.26 84.90 75.93"),
        Published("Lorenz", "Table 6.9", {"regressed_accuracy/average": 74.50}),  # not stated: mean of groups or of points
        _bbcpose("Jakab", "Table 6.9", "76.10 56.50 70.70 74.30", points=68.44),
        _bbcpose("chapter 5", "Table 5.2", "83.65 62.93 63.13 35.00 61.18", "raw_accuracy"),
        _bbcpose("Zhang, raw", "Table 5.2", "95.36 32.36 15.02 28.02 42.69", "raw_accuracy"),
        _bbcpose("Jakab, raw", "Table 5.2", "48.29 18.55 19.10 32.11", "raw_accuracy", points=26.83),
    ),
    "human36m": (
        _human36m(
            "chapter 6",
            "81.1 89.8 39.7 94.2 93.6 64.4 77.1",
            "51.7 86.3 43.0 92.2 83.9 63.5 70.1",
            "0.22 0.84 0.95 0.30 0.91 0.97",
        ),
        Published("chapter 5", "Table 5.2", _grouped("raw_accuracy", _HUMAN, "95.1 59.15 58.60 67.59 69.35 73.30 70.35")),
        _human36m(
            "Zhang",
            "20.9 53.1 51.0 43.7 85.6 2.0 42.7",
            "11.1 34.8 44.6 20.9 69.3 0.50 30.2",
            "0.02 0.17 0.67 0.06 0.41 0.82",
        ),
        _human36m(
            "Jakab",
            "0.5 52.2 32.4 26.1 3.7 24.6 23.2",
            "0.20 39.8 19.3 15.2 2.15 14.1 15.1",
            "0.0 0.0 0.07 0.0 0.01 0.25",
        ),
    ),
    "pennaction": (
        Published("chapter 6", "Table 6.10", _grouped("raw_accuracy", _PENN, "74.27 57.91 33.00 8.36 64.81 69.54 75.84")),
        Published("Jakab", "Table 6.10", _grouped("raw_accuracy", _PENN, "6.36 9.23 7.85 0.59 22.27 17.85 6.48")),
    ),
    "deepfashion": (),  # only curves, Fig. 4.4, over 14 body points inferred by an external detector
    "cub": (),  # only pictures, Fig. 6.14
}  # fmt: skip
