"""A small demo learns landmarks: the whole method on 80 px images of the synthetic category, trained for minutes."""

import json

import pytest

DEMO = [
    "network.image_size=80", "network.width=32", "network.descriptor_dim=32", "stage1.warmup_iterations=400",
    "stage1.rounds=2", "stage1.round_iterations=120", "stage2.iterations=400", "compute.precision=fp32",
]  # fmt: skip
"""Changes to the ready configuration `demo`."""


@pytest.fixture(scope="module")
def scores(finish, tmp_path_factory) -> dict:
    """What `kplm demo --json` prints."""
    folder = tmp_path_factory.mktemp("demo")
    out, _ = finish("demo", *DEMO, "--folder", folder, "--images", 500, "--json", deadline_s=1500)
    return json.loads(out)


def test_landmarks_predict_the_annotation_far_better_than_the_mean_shape(scores):
    assert scores["forward_nme"] < 0.7 * scores["mean_shape_nme"]


def test_self_training_improves_the_landmarks_of_the_warm_up(scores):
    assert scores["forward_nme"] < 0.8 * scores["warmup_forward_nme"]


def test_self_training_improves_how_well_the_annotation_predicts_the_landmarks(scores):
    assert scores["backward_nme"] < 0.8 * scores["warmup_backward_nme"]
