"""`kplm synth`: kinds and marks by name, errors of what is not there."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from ray_kplm.cli.main import main
from ray_kplm.imaging.synthetic.category import category_of
from ray_kplm.imaging.synthetic.kinds import DEFAULT, KINDS


def test_a_side_view_category_with_marks_is_written(tmp_path, capsys) -> None:
    folder = tmp_path / "images"
    main(["synth", "5", str(folder), "--kind", "profile", "--background-marks", "3", "--size", "48", "--no-boxes"])
    assert f"{folder}: 5 images; next: kplm ingest {folder} DATASET" in capsys.readouterr().out
    description = json.loads((folder / "dataset.json").read_text())
    assert description["name"] == "synthetic_profile_48"
    assert description["swap_pairs"] == []
    assert len(description["background_marks"]["centres"]) == 3
    assert pq.read_table(folder / "train.parquet")["bbox"].null_count == 4


def test_the_default_is_the_creature_with_boxes_and_without_marks(tmp_path) -> None:
    main(["synth", "2", str(tmp_path), "--size", "32"])
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["name"] == "synthetic_creature_32"
    assert "background_marks" not in description
    assert pq.read_table(tmp_path / "train.parquet")["bbox"].null_count == 0


def test_help_names_every_kind(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["synth", "--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and explanation in text for name, explanation in KINDS.items())


def test_every_kind_has_a_renderer_and_as_many_landmarks_as_its_help_says() -> None:
    assert DEFAULT in KINDS
    for name, text in KINDS.items():
        assert f"{len(category_of(name).landmark_names)} landmarks" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "profil"], "did you mean profile?"),
        (["--kind", "zebra"], "choose from creature, profile"),
        (["--background-marks", "11"], "'11' must be a whole number, 0 to 10"),
        (["--background-marks", "some"], "'some' must be a whole number, 0 to 10"),
    ],
)
def test_an_error_says_what_may_be_passed(words, message, tmp_path, capsys) -> None:
    try:
        code = main(["synth", "5", str(tmp_path / "never"), *words])
    except SystemExit as ended:  # of argparse
        code = ended.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
