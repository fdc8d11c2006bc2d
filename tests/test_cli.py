"""The command line: which stream gets what, exit codes, suggestions for mistyped words, help."""

import importlib.metadata
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from ray_kplm import errors
from ray_kplm.cli import checks
from ray_kplm.cli.console import OUTPUT_CLOSED
from ray_kplm.cli.main import EXIT_CODES, build_parser, main
from ray_kplm.errors import KplmError

ROOT = Path(__file__).parent.parent
FIGURES = {"seconds": 2.5, "same": True, "rounds": [], "time_ratio_largest_to_smallest": 1.0, "per_image": [1, 2]}


@pytest.fixture
def replace(monkeypatch):
    """Puts names in the place of a module that a command imports when it is called."""
    return lambda module, **names: monkeypatch.setitem(sys.modules, f"ray_kplm.{module}", SimpleNamespace(**names))


@pytest.fixture
def unchecked(monkeypatch):
    """Makes commands take inputs that do not exist."""
    run = SimpleNamespace(config=SimpleNamespace(compute=None))
    monkeypatch.setattr(checks, "training", lambda *_, **__: None)
    for name in ("dataset_of", "finished_run"):
        monkeypatch.setattr(checks, name, lambda *_: run)


@pytest.fixture
def endurance(replace):
    """Makes `kplm bench endurance` do something else: a function of its `progress`."""
    return lambda work: replace("bench.endurance", bench=lambda rounds, per_fit, progress: work(progress))


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"kplm {importlib.metadata.version('ray-kplm')}\n"


def commands_with_figures(replace):
    """Stand-ins for what the commands call, each of which prints on stdout as a library may."""

    def work(*_, **__):
        print("a library's banner")
        return FIGURES

    for name in (
        "correspondence",
        "train",
        "evaluation",
        "rounds",
        "label_free",
        "fault_injection",
        "boundary_faults",
        "endurance",
    ):
        replace(f"bench.{name}", bench=work, lines=lambda found: ["seconds 2.500"])
    replace("bench.kmeans_speed", Sizes=lambda *_: None)
    replace("experiments.ablation", ablate=work, plain=lambda rows: FIGURES, table_lines=lambda rows: ["seconds 2.500"])
    replace("run", Run=SimpleNamespace(open=lambda uri: SimpleNamespace(config=SimpleNamespace(compute=None))))
    replace("runtime.session", session=lambda compute: nullcontext())
    replace("analysis.label_free", measure_quality=work)
    replace("report.quality_table", quality_table=lambda quality: "seconds 2.500")


@pytest.mark.parametrize("command", [
    ["bench", "correspondence"], ["bench", "train"], ["bench", "evaluation"], ["bench", "rounds"],
    ["bench", "quality", "RUN"], ["bench", "chaos"], ["bench", "chaos", "--victims", "node"],
    ["bench", "endurance"], ["quality", "RUN"],
    ["ablate", "demo", "--over", "mirror"],
])  # fmt: skip
def test_json_is_alone_on_stdout_and_the_table_is_there_without_it(command, replace, unchecked, capsys):
    commands_with_figures(replace)
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    expected = {name: value for name, value in FIGURES.items() if name != "per_image"}
    assert json.loads(said.out) == ({"rows": FIGURES} if command[0] == "ablate" else expected)
    assert "a library's banner" in said.err
    assert main(command) == 0
    said = capsys.readouterr()
    assert "{" not in said.out
    assert "2.500" in said.out


def test_a_check_that_fails_prints_its_result_and_ends_with_1(replace, capsys):
    for name, options in (("boundary_faults", []), ("fault_injection", ["--together"])):
        replace(f"bench.{name}", bench=lambda *_: {"same": False}, lines=lambda found: ["it differs"])
        assert main(["bench", "chaos", *options]) == 1
        assert capsys.readouterr().out == "it differs\n"


@pytest.mark.parametrize("options", [["--boundaries", "3", "--together"], ["--boundaries", "3", "--victims", "node"]])
def test_chaos_at_boundaries_that_make_no_sense_is_refused(options, capsys):
    assert main(["bench", "chaos", *options]) == 2
    assert "--boundaries" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["-q", "bench", "endurance"], ["bench", "--quiet", "endurance"], ["bench", "endurance", "-q"]]
)
def test_quiet_leaves_the_result_and_warnings(endurance, arguments, capsys):
    def work(progress):
        progress(0.3, "round 3")
        logging.getLogger("some.library").info("a detail")
        print("kplm: a warning", file=sys.stderr)
        return {"seconds": 2.5}

    endurance(work)
    assert main(["bench", "endurance"]) == 0
    assert capsys.readouterr().err == "[ 30%] round 3\nkplm: a warning\n"
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.err == "kplm: a warning\n"
    assert said.out.split() == ["seconds", "2.500"]


@pytest.mark.parametrize(
    "arguments", [["-v", "bench", "endurance"], ["bench", "endurance", "--verbose"], ["-q", "bench", "endurance", "-v"]]
)
def test_verbose_logs_details_and_tracebacks(endurance, arguments, caplog, capsys):
    def work(progress):
        logging.getLogger("some.library").info("a detail")
        raise errors.DataError("no such image")

    endurance(work)
    main(["bench", "endurance"])
    assert not caplog.records
    main(arguments)
    assert [record.message for record in caplog.records] == ["a detail", "traceback of the error:"]
    assert caplog.records[1].exc_info
    assert capsys.readouterr().err.count("kplm: no such image\n") == 2


@pytest.mark.parametrize(("kind", "code"), [
    ("ConfigError", 2), ("DataError", 3), ("StorageError", 4), ("RunError", 4), ("TrackingError", 4), ("ClusterError", 5),
    ("CollapseError", 6),
])  # fmt: skip
def test_errors_end_with_the_exit_code_of_their_kind(endurance, kind, code, capsys):
    def work(progress):
        raise getattr(errors, kind)("the value, the rule, the way out")

    endurance(work)
    assert main(["bench", "endurance", "--json"]) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "kplm: the value, the rule, the way out\n")


def test_every_exit_code_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    used = {kind.exit_code for kind in KplmError.__subclasses__()} | {0, 2, 130, OUTPUT_CLOSED}
    assert used <= EXIT_CODES.keys()
    assert all(f"  {code:>3}  {meaning}\n" in text for code, meaning in EXIT_CODES.items())


def test_an_interruption_ends_with_130(endurance, capsys):
    def work(progress):
        raise KeyboardInterrupt

    endurance(work)
    assert main(["bench", "endurance"]) == 130
    assert capsys.readouterr().err == "kplm: interrupted; the same command continues\n"


@pytest.mark.parametrize("arguments", [["configs"], ["--help"], ["train", "--help"], ["--version"], ["schema"]])
def test_a_closed_output_ends_a_command_silently(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "ray_kplm.cli", *arguments], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (OUTPUT_CLOSED, b"")


def commands() -> list[list[str]]:
    """`kplm` itself and all commands, with each kind of `kplm bench`."""
    (choices,) = (a.choices for a in build_parser()._subparsers._group_actions)
    (kinds,) = (a.choices for a in choices["bench"]._subparsers._group_actions)
    return [[]] + [[name] for name in choices if name != "bench"] + [["bench"]] + [["bench", kind] for kind in kinds]


@pytest.mark.parametrize("command", commands(), ids=lambda words: " ".join(["kplm", *words]))
def test_the_help_of_a_command_has_a_description_and_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 130
    description = text.split("\n\n")[1]
    assert description[0].isupper()
    assert description.endswith((".", "$schema=PATH"))
    for line in re.findall(r"^ +(kplm .*)", re.sub(r"\\\n +", "", text), re.MULTILINE):
        for piece in re.split(r" && | > ", line):
            if piece.startswith("kplm "):
                assert build_parser().parse_args(shlex.split(piece, comments=True)[1:]).call, piece


def test_help_does_not_wait_for_heavy_libraries():
    code = (
        "import sys; from ray_kplm.cli.main import build_parser; build_parser().format_help(); "
        "print(sorted({'torch', 'ray', 'numpy', 'pyarrow', 'mlflow', 'shtab', 'importlib.metadata'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout == "[]\n"


@pytest.mark.parametrize(("arguments", "words"), [
    (["trian", "demo"], "invalid choice: 'trian'; did you mean train?"),
    (["bench", "evalution"], "invalid choice: 'evalution'; did you mean evaluation?"),
    (["bench", "zzz"], "invalid choice: 'zzz'; choose from correspondence, train"),
    (["demo", "--imags", "60"], "unrecognized arguments: --imags; did you mean --images?"),
    (["show", "RUN", "--cuont=3"], "unrecognized arguments: --cuont=3; did you mean --count?"),
    (["show", "RUN", "more"], "unrecognized arguments: more"),
    (["configs", "face_cpu"], "invalid choice: 'face_cpu'; did you mean faces_cpu?"),
])  # fmt: skip
def test_a_mistyped_word_gets_a_suggestion(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [
    ["train", "demo", "-q", "seed=5", "run=x"], ["train", "demo", "seed=5", "-q", "run=x"],
    ["-q", "train", "demo", "seed=5", "run=x"], ["train", "-q", "demo", "seed=5", "run=x"],
])  # fmt: skip
def test_overrides_may_stand_among_options(arguments, replace, unchecked):
    seen = []
    run = SimpleNamespace(folder="x")
    replace("pipeline", discover=lambda config, progress: seen.append((config.seed, config.run)) or (run, False))
    assert main(arguments) == 0
    assert seen == [(5, "x")]


def test_configurations_are_listed_and_printed(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = sorted((ROOT / "ray_kplm" / "configs").glob("*.yaml"))
    assert [line.split()[0] for line in lines] == [path.stem for path in files]
    for line, path in zip(lines, files, strict=True):
        assert line.split(maxsplit=1)[1] == path.read_text().splitlines()[0].removeprefix("# ")
        assert main(["configs", path.stem]) == 0
        assert capsys.readouterr().out == path.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_all_commands_and_their_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("train", "correspondence", "grace-rounds", "visible-only"):
        assert word in script, word


def test_bash_completes(capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out

    def completed(*words):
        ask = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_kplm; echo ${{COMPREPLY[@]}}"
        return subprocess.run(
            ["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, cwd=ROOT
        ).stdout.split()

    assert completed("kplm", "tr") == ["train"]
    assert "--asha" in completed("kplm", "sweep", "--as")
    assert completed("kplm", "configs", "thesis_faces_m") == ["thesis_faces_merge"]
    assert completed("kplm", "evaluate", "ray_kplm/conf") == ["ray_kplm/configs"]
    assert completed("kplm", "train", "constr") == ["constraints.txt"]
