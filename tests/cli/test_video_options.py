"""Options for videos on the command line: what they become, and what is refused."""

import pytest

from ray_kplm.cli import video_options
from ray_kplm.cli.main import build_parser
from ray_kplm.errors import ConfigError
from ray_kplm.inference.videos import RenderOptions
from ray_kplm.video.smoothing import SmoothOptions


def parsed(*words: str):
    return build_parser().parse_args(["predict", "run", "clip.mp4", "out", *words])


def test_without_options_nothing_is_drawn_or_smoothed():
    assert video_options.smoothing(parsed()) == SmoothOptions()
    assert video_options.rendering(parsed()) is None


def test_options_become_those_of_the_prediction():
    words = [
        "--smooth",
        "one-euro",
        "--smooth-min-cutoff",
        "0.5",
        "--smooth-beta",
        "3",
        "--smooth-derivative-cutoff",
        "2",
    ]
    assert video_options.smoothing(parsed(*words)) == SmoothOptions("one-euro", 0.5, 3.0, 2.0)
    render = video_options.rendering(parsed("--render", "drawn.mp4", "--trail", "0", "--no-numbers"))
    assert render == RenderOptions("drawn.mp4", 0, numbers=False)


@pytest.mark.parametrize(
    "words", [["--smooth", "kalman"], ["--trail", "-1"], ["--smooth-min-cutoff", "0"], ["--smooth-beta", "nan"]]
)
def test_values_out_of_range_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        parsed(*words)
    assert words[0] in capsys.readouterr().err


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    video_options.check_package(["photos", "a.png"])
    with pytest.raises(ConfigError, match=r"extra video") as caught:
        video_options.check_package(["photos", "Clip.MOV"])
    assert "\n" not in str(caught.value)


def test_ingest_takes_several_videos():
    options = build_parser().parse_args(["ingest", "a.mp4", "b.mov", "data", "--every", "10"])
    assert (options.source, options.dataset, options.every) == (["a.mp4", "b.mov"], "data", 10)
    assert build_parser().parse_args(["ingest", "photos", "data"]).every is None
