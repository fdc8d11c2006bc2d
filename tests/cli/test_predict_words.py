"""SOURCE..., OUT and overrides among the words of `kplm predict`."""

import io

import pytest

from ray_kplm.cli.main import build_parser
from ray_kplm.cli.predict import _names, _split_formats, _split_words
from ray_kplm.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("photos out", (["photos"], "out", [])),
        ("a.jpg b.jpg c.jpg out", (["a.jpg", "b.jpg", "c.jpg"], "out", [])),
        ("photos out compute.threads=1", (["photos"], "out", ["compute.threads=1"])),
        ("compute.threads=1 photos out compute.gpus_per_worker=0.5", (
            ["photos"], "out", ["compute.threads=1", "compute.gpus_per_worker=0.5"])),
        ("a=b.jpg s3://bucket/x?k=v out", (["a=b.jpg", "s3://bucket/x?k=v"], "out", [])),
        ("photos out stage2.iterations=3", (["photos"], "out", ["stage2.iterations=3"])),
    ],
)  # fmt: skip
def test_words_are_sources_then_out_and_overrides_anywhere(words, expected):
    assert _split_words(words.split()) == expected


@pytest.mark.parametrize("words", ["photos", "photos compute.threads=1", "compute.threads=1 compute.cpus_per_worker=2"])
def test_a_missing_out_is_named(words):
    with pytest.raises(ConfigError, match="name SOURCE, any number of them, and OUT last"):
        _split_words(words.split())


@pytest.mark.parametrize(
    ("words", "formats"),
    [
        ("", []),
        ("--to coco", ["coco"]),
        ("--to csv,coco --to dlc", ["csv", "coco", "dlc"]),
        ("--to csv coco compute.threads=1", ["csv", "coco"]),
    ],
)
def test_formats_are_separated_by_spaces_commas_and_flags(words, formats):
    options = build_parser().parse_args(["predict", "run", "photos", "out", *words.split()])
    overrides, found = _split_formats(options.to)
    assert found == formats
    assert overrides == (["compute.threads=1"] if "threads" in words else [])


def test_standard_input_is_a_source_after_options_too():
    options = build_parser().parse_args(["predict", "run", "-", "out", "--json"])
    assert (options.source, options.out) == (["-"], "out")
    options = build_parser().parse_args(["predict", "run", "a.jpg", "--json", "-", "out"])
    assert _split_words([*options.source, options.out, *options.overrides])[:2] == (["a.jpg", "-"], "out")


@pytest.mark.parametrize("words", ["photos out --to sql", "--to csv photos out"])
def test_a_word_that_is_no_format_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["predict", "run", *words.split()])
    assert "is no format; choose from parquet, csv, coco, dlc, slp, nwb, yolo, labelstudio" in capsys.readouterr().err


def test_names_on_standard_input_stand_one_a_line():
    assert _names(io.StringIO("a b.jpg\n\n=c,d.png\r\n e\n")) == ["a b.jpg", "=c,d.png", " e"]
    with pytest.raises(DataError, match="there are no names on standard input"):
        _names(io.StringIO("\n"))
