"""`kplm check`: exit codes, streams, the page, and what is refused."""

import json

import pytest

from ray_kplm.cli.check_dataset import RISKY, UNSUITABLE
from ray_kplm.cli.main import EXIT_CODES, main
from tests.made_images import landscapes, objects, write_dataset


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "data"
    images, boxes = objects(60)
    write_dataset(folder, images[:50], images[50:], boxes)
    return folder


@pytest.fixture(scope="module")
def meadows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meadows") / "data"
    write_dataset(folder, landscapes(60))
    return folder


def test_json_is_one_object_with_the_verdict_and_each_reason(clean, capsys):
    assert main(["check", str(clean), "--no-timing", "--json"]) == RISKY
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "risky"
    [reason] = [one for one in found["findings"] if one["level"] != "suitable"]
    assert (reason["name"], reason["figure"], reason["bound"]) == ("images", 50, 300)
    assert reason["way_out"]
    assert found["measures"]["train"] == 50
    assert found["suggested"]["training"] is None


def test_an_unsuitable_dataset_has_its_code_its_reason_and_its_page(meadows, tmp_path, capsys):
    page = tmp_path / "new" / "check.html"
    assert main(["check", str(meadows), "--no-timing", "--html", str(page)]) == UNSUITABLE
    out = capsys.readouterr().out
    assert "UNSUITABLE" in out
    assert "--boxes" in out
    assert str(page) in out
    assert "next: kplm train" not in out
    html = page.read_text()
    assert "nothing is at a common place" in html
    assert html.count("data:image/jpeg") >= 10
    assert "http" not in html.replace("http-equiv", "")


def test_the_time_of_a_run_is_printed(clean, small_config, capsys):
    assert main(["check", str(clean), "demo", *small_config]) == RISKY
    out = capsys.readouterr().out
    assert "time of demo on this machine" in out
    assert "next: kplm train demo dataset=" in out


def test_the_codes_are_in_the_help(capsys):
    assert {RISKY, UNSUITABLE} <= EXIT_CODES.keys()
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    out = capsys.readouterr().out
    assert f"risky       {RISKY}" in out
    assert f"unsuitable  {UNSUITABLE}" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing"], 3, "no finished dataset"),
        (["DATA", "--html", "page.txt"], 2, ".html"),
        (["DATA", "no_such_config"], 2, "no_such_config"),
        (["DATA", "stage1.rounds=many"], 2, "stage1.rounds"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(clean, arguments, code, said, capsys):
    assert main(["check", *[str(clean) if word == "DATA" else word for word in arguments]]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_damaged_part_is_named(tmp_path, capsys):
    write_dataset(tmp_path / "data", objects(8)[0])
    part = tmp_path / "data" / "train" / "images" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    assert main(["check", str(tmp_path / "data"), "--no-timing"]) in (3, 4)
    assert "part-00000" in capsys.readouterr().err
