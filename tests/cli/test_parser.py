"""Numbers of the command line: each has a range, and one that is out of it is a usage error that says the range."""

from __future__ import annotations

import argparse
import math

import pytest

from ray_kplm.cli.main import build_parser
from ray_kplm.cli.parser import Number
from ray_kplm.ranges import Range


def numbers(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()):
    """Words of the command, and the option, of every option that is a number."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from numbers(command, (*words, name))
        elif action.type in (int, float) or isinstance(action.type, Number):
            yield words, action


NUMBERS = list(numbers(build_parser()))


def test_all_commands_are_searched():
    assert len(NUMBERS) > 35
    commands = {words[0] for words, _ in NUMBERS}
    assert {"synth", "ingest", "predict", "show", "sweep", "ablate", "demo", "bench"} <= commands


@pytest.mark.parametrize(
    ("words", "action"), NUMBERS, ids=[f"{' '.join(words)} {action.dest}" for words, action in NUMBERS]
)
def test_every_number_has_a_range_that_its_default_is_in(words, action):
    assert isinstance(action.type, Number), "has no range"
    given = action.default if isinstance(action.default, list) else [action.default]
    assert all(value is None or action.type.allowed.holds(value) for value in given)
    allowed = action.type.allowed
    for text in (repr(allowed.low - 1), repr(allowed.high + 1), "nan", "inf", "-1e400", "ten", "", "9" * 5000, "1,5"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a"):
            action.type(text)


def test_a_number_out_of_its_range_ends_the_command_with_one_line_about_it(capsys):
    for words in (["predict", "r", "s", "o", "--margin", "nan"], ["show", "r", "--count", "0"], ["synth", "-3", "d"]):
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args(words)
        assert ended.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"kplm {words[0]}: error: ")


def test_a_number_is_of_its_kind():
    assert type(Number(int, Range(0, 9))("3")) is int
    assert math.isclose(Number(float, Range(0, 9))("1e-1"), 0.1)
    with pytest.raises(argparse.ArgumentTypeError, match=r"'3\.5' must be a whole number, 0 to 9"):
        Number(int, Range(0, 9))("3.5")
