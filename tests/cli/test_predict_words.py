"""SOURCE..., OUT and overrides among the words of `kplm predict`."""

import pytest

from ray_kplm.cli.predict import _split_words
from ray_kplm.errors import ConfigError


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
