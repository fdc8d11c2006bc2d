"""Evidence for pages: small images that show where their landmarks are, and figures of the shape that runs leave."""

from dataclasses import replace

import numpy as np
import pytest

from ray_kplm.report.cards import Findings, choose, make_album
from ray_kplm.report.run_page import Embedding, Evidence


def noisy(count, side, seed=0):
    """Noise, the least compressible of images, with a light square: uint8 (side, side, 3) each."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        image = rng.integers(0, 200, (side, side, 3), dtype=np.uint8)
        image[side // 4 : side // 2, side // 4 : side // 2] = 255
        yield image


def quality_of(landmarks):
    """As `quality.json` holds it: landmark 1 stands still, landmark 2 is rare and has no number for its mirror error."""
    rates = [0.9] * landmarks
    rates[2] = 0.125
    flips: list[float | None] = [2.5] * landmarks
    flips[2] = None
    return {
        "images": 100, "landmarks": landmarks, "equivariance_error": 1.75, "equivariance_per_landmark": [1.75] * landmarks,
        "flip_error": 2.5, "flip_per_landmark": flips, "detection_rate": 0.85, "detection_rate_per_landmark": rates,
        "peak_sharpness": 0.5, "sharpness_per_landmark": [0.5] * landmarks, "cluster_compactness": None,
        "compactness_per_landmark": None, "positional_spread": 8.0, "spread_per_landmark": [8.0] * landmarks,
        "static_landmarks": [1], "static_share": 1 / landmarks, "min_landmark_distance": 5.0, "coverage": 21.5, "score": 3.25,
        "warnings": ["landmark 1 does not move with the object"],
    }  # fmt: skip


def metrics_of(landmarks):
    """As `metrics.json` holds it; the last landmark is far off."""
    backward = [4.0] * (landmarks - 1) + [9.5]
    stage = {
        "forward_nme": 6.5, "forward_nme_sd": 0.1, "backward_nme": 4.5, "backward_nme_sd": 0.2, "points_per_image": 3.0,
        "forward_per_landmark": [5.0, None, 8.0], "backward_per_landmark": backward, "mean_shape_nme": 20.0,
        "min_landmark_distance": 5.0, "left_out": {"images_without_normaliser": 2},
    }  # fmt: skip
    return {**stage, "stages": {"stage2": stage, "stage1": {**stage, "forward_nme": 7.25}, "warmup": stage}}


def make_evidence(images=8, landmarks=4, side=40, gallery=100, **changes):
    rng = np.random.default_rng(1)
    findings = Findings(
        ids=[f"image {i}.png" for i in range(images)],
        sizes=np.full((images, 2), side),
        xy=rng.uniform(4, side - 4, (images, landmarks, 2)),
        confidence=rng.uniform(0.5, 1, (images, landmarks)),
        errors=np.arange(images, dtype=float)[::-1] + 1,
    )
    findings = replace(findings, **{name: changes.pop(name) for name in ("ids", "xy", "errors") if name in changes})
    chosen = choose(findings.difficulty(), gallery, 0)
    shown = (image for i, image in enumerate(noisy(images, side)) if i in set(chosen.tolist()))
    evidence = Evidence(
        run="runs/first", dataset="faces", kind="kplm", train_images=1234, split="test", total=images, findings=findings,
        album=make_album(findings, chosen, shown), flip_map=[0, 2, 1, -1][:landmarks] + [-1] * (landmarks - 4),
        quality=quality_of(landmarks), metrics=metrics_of(landmarks),
        rounds=[{"round": i, "points_per_image": 3.0 + i, "loss": 0.5 / (i + 1), "stability": 80.0 if i == 0 else None}
                for i in range(3)],
        embeddings=[Embedding("After the warm-up", rng.normal(size=(30, 2)), rng.integers(-1, landmarks, 30))],
        facts={"Seed": "0"}, config="seed: 0\n",
    )  # fmt: skip
    return replace(evidence, **changes)


@pytest.fixture(scope="session")
def evidence():
    """Makes evidence of so many images and landmarks; further keywords replace what is in it."""
    return make_evidence


@pytest.fixture(scope="session")
def noise():
    """Makes so many square images of a side: an iterator of uint8 (side, side, 3)."""
    return noisy
