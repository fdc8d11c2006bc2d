"""Rank correlations of label-free measures with the error against the annotation."""

import numpy as np
import pytest

from ray_kplm.bench.label_free import MEASURES, correlations


def rows(errors, dataset="faces", stage="stage2", **measures):
    return [
        {"dataset": dataset, "stage": stage, "forward_nme": error, "equivariance_per_landmark": [1.0, 2.0, 3.0, 4.0, None],
         "backward_per_landmark": [2.0, 9.0, 10.0, 11.0, 1.0]}
        | {name: measures[name][i] if name in measures else None for name in MEASURES}
        for i, error in enumerate(errors)
    ]  # fmt: skip


def test_only_ranks_count():
    errors = [5.0, 6.0, 7.0, 20.0]
    found, _ = correlations(
        rows(errors, score=[1, 2, 3, 900], peak_sharpness=[0.9, 0.8, 0.7, 0.1], flip_error=[1, 3, 2, 4])
    )
    by_measure = found["faces, all"]
    assert by_measure["score"] == {"spearman": pytest.approx(1), "checkpoints": 4}
    assert by_measure["peak_sharpness"]["spearman"] == pytest.approx(-1)
    assert by_measure["flip_error"]["spearman"] == pytest.approx(0.8)  # 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1))
    assert found["faces, stage 2"] == by_measure


def test_an_undefined_correlation_is_none():
    found, _ = correlations(rows([5.0, 6.0, 7.0, 8.0], score=[1, 2, None, 4], static_share=[0, 0, 0, 0]))
    assert found["faces, all"]["score"] == {"spearman": None, "checkpoints": 3}
    assert found["faces, all"]["static_share"] == {"spearman": None, "checkpoints": 4}


def test_datasets_and_stages_are_correlated_separately():
    rounds = rows([8.0, 7.0, 6.0, 5.0], stage="1", score=[4, 3, 2, 1])
    others = rows([1.0, 2.0, 3.0, 4.0], dataset="demo", score=[4, 3, 2, 1])
    last = rows([4.0, 3.0], score=[1.0, 2.0])
    found, _ = correlations([*rounds, *others, *last])
    assert list(found) == ["faces, all", "demo, all", "demo, stage 2", "faces, stage 2"]
    assert found["faces, all"]["score"]["checkpoints"] == 6
    assert found["demo, all"]["score"]["spearman"] == pytest.approx(-1)
    assert found["faces, stage 2"]["score"] == {"spearman": None, "checkpoints": 2}


def test_landmarks_of_a_checkpoint_are_correlated():
    _, over = correlations(rows([5.0, 6.0]))
    assert over["faces, all"] == pytest.approx(1)  # the fifth has no equivariance error
    assert np.isfinite(list(over.values())).all()
