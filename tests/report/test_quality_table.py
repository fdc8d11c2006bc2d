"""The table of label-free measures."""

from ray_kplm.evaluation.label_free import PER_LANDMARK
from ray_kplm.report.quality_table import quality_table


def test_each_landmark_has_a_row_and_means_and_warnings_follow():
    quality = {name: 0.5 for name in PER_LANDMARK} | {name: [0.25, None] for name in PER_LANDMARK.values()}
    quality |= {"cluster_compactness": None, "compactness_per_landmark": None, "partners": [1, -1], "images": 9,
                "min_landmark_distance": 4.0, "coverage": 21.5, "score": None,
                "shift_error": None, "inside_box": None,
                 "transfer": None, "landmark_transfer": None, "mirror_identity": None, "against": None,
                "warnings": ["landmark 1 is detected in no image"]}  # fmt: skip
    lines = quality_table(quality).splitlines()
    assert "compactness" not in lines[0]
    assert lines[1].split() == ["0", "0.25", "%", "0.25", "%", "25%", "25%", "0.25", "0.2", "%", "1"]
    assert lines[2].split() == ["1", "-", "-", "-", "-", "-", "-", "-"]
    assert lines[3].startswith("mean")
    assert lines[-1] == "warning: landmark 1 is detected in no image"
    assert any(
        "4.0 %" in line and "coverage: 21.5 %" in line and "score (lower is better): -" in line for line in lines
    )


def test_layout_reliance_boxes_and_the_other_run_have_a_line():
    quality = {name: 0.5 for name in PER_LANDMARK} | {name: [0.25] for name in PER_LANDMARK.values()}
    quality |= {"partners": [0], "images": 9, "min_landmark_distance": None, "coverage": 21.5, "score": 4.0, "warnings": [],
                "shift_error": 3.0, "shift_error_median": 2.0, "background_error_median": 1.5, "position_identity": 0.9,
                "inside_box": 0.96, "transfer": 0.72, "mirror_identity": 0.9, "box_coverage": 0.8,
                "against": {"run": "runs/b", "error": 3.0, "mean_position_error": 10.0, "agreement": 0.69}}  # fmt: skip
    text = quality_table(quality)
    assert "off by 3.0 % (median 2.0 %); on another background: 1.5 %" in text
    assert "told by canonical position alone: 90%" in text
    assert "in the object's box: 96%; of its sides they span: 80%" in text
    assert "against runs/b: its landmarks predict these with an error of 3.0 % (their mean position: 10.0 %)" in text
    assert "transfer 0.72 (guessing: 0.5), mirror 0.90" in text
    assert "agreement 69%" in text
