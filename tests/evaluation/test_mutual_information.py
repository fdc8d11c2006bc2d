"""NMI: a textbook's example, scikit-learn as a second opinion, and the limits."""

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from ray_kplm.evaluation.mutual_information import nearest_points, normalised_mutual_information


def test_nmi_equals_the_textbooks_example():
    # Manning, Raghavan & Schuetze, Introduction to Information Retrieval, Fig. 16.4 and Table 16.2: NMI 0.36.
    clusters = [0] * 6 + [1] * 6 + [2] * 5
    classes = [*[0, 0, 0, 0, 0, 1], *[0, 1, 1, 1, 1, 2], *[0, 0, 2, 2, 2]]
    assert round(normalised_mutual_information(clusters, classes), 2) == 0.36


def test_nmi_equals_scikit_learn():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 500), rng.integers(0, 4, 500)
    second[:200] = first[:200] // 3
    expected = normalized_mutual_info_score(first, second, average_method="arithmetic")
    assert normalised_mutual_information(first, second) == pytest.approx(expected, abs=1e-9)


def test_names_do_not_matter_and_independence_is_zero():
    labels = np.repeat([0, 1, 2, 3], 5)
    assert normalised_mutual_information(labels, 7 - 2 * labels) == pytest.approx(1.0)
    assert normalised_mutual_information(labels, np.tile([0, 1, 2, 3, 4], 4)) == pytest.approx(0.0, abs=1e-9)


def test_single_labels_agree_and_missing_labels_are_ignored():
    assert normalised_mutual_information([4, 4], [2, 2]) == 1
    assert normalised_mutual_information([4, 4, 4], [2, 2, 1]) == 0
    assert np.isnan(normalised_mutual_information([-1, 3], [3, -1]))
    assert normalised_mutual_information([0, 1, -1, 0], [5, 6, 6, -1]) == pytest.approx(1.0)


def test_the_true_label_is_the_nearest_annotated_point():
    gone = [np.nan, np.nan]
    detections = np.array([[[0.0, 0.0], [9.0, 0.0], gone], [[0.0, 0.0], gone, gone], [[0.0, 0.0], gone, gone]])
    truth = np.array([[[8.0, 0.0], [1.0, 1.0]], [[8.0, 0.0], gone], [gone, gone]])
    assert nearest_points(detections, truth).tolist() == [[1, 0, -1], [0, -1, -1], [-1, -1, -1]]
