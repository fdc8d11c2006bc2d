"""The documentation is true of the repository where a machine can tell: paths, commands, configuration keys, links."""

import inspect
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from ray_kplm import schemas
from ray_kplm.cli.main import build_parser
from ray_kplm.config import Config, load_config
from ray_kplm.datasets.registry import FORMATS
from ray_kplm.methods import kplm
from ray_kplm.run import Run
from ray_kplm.steps.recorder import record

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ids = [page.name for page in PAGES]
ROOMS = tuple(path.name for path in (ROOT / "ray_kplm").iterdir() if path.is_dir())


def shell(page: Path) -> list[str]:
    """The lines of a page's shell blocks."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def code(page: Path) -> list[str]:
    """All inline code of a page, and the lines of its shell blocks."""
    text = page.read_text(encoding="utf-8")
    return [
        *re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)),
        *shell(page),
    ]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_are_named_exist(page):
    for snippet in code(page):
        for path in re.findall(r"(?<![\w/.<-])((?:\w+/)+\w+\.(?:py|yaml|md))\b", snippet):
            under_package = path.startswith(ROOMS)
            if under_package or path.startswith(("ray_kplm/", "jobs/", "docs/", "tests/")):
                assert (ROOT / path).exists() or (ROOT / "ray_kplm" / path).exists(), f"{path} in `{snippet}`"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_in_shell_blocks_parse(page):
    for line in shell(page):
        for command in re.findall(r"\bkplm ([^&;#|]+)", line):
            assert build_parser().parse_args(shlex.split(command)).call, command


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_that_are_named_have_the_options_that_are_named(page, capsys):
    for snippet in code(page):
        for command in re.findall(r"\bkplm ([a-z][^&;#|]*)", snippet):
            names = re.match(r"(bench [a-z-]+|[a-z]+)", command)[0].split()
            with pytest.raises(SystemExit) as end:
                build_parser().parse_args([*names, "--help"])
            assert end.value.code == 0, snippet
            known = capsys.readouterr().out
            for option in re.findall(r"(?<=\s)--[a-z-]+", command):
                assert option in known, snippet


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_configuration_keys_that_are_named_exist(page):
    keys = Config().flat()
    sections = {key.split(".")[0] for key in keys if "." in key}
    for snippet in code(page):
        for section, name in re.findall(r"(?<![\w./])([a-z]+\d?)\.([a-z_]+)(?![\w./(])", snippet):
            if section in sections and name not in ("py", "pt", "npz", "json"):
                assert f"{section}.{name}" in keys, f"{section}.{name} in `{snippet}`"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_every_table_on_storage_is_described():
    text = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
    for name in (
        "IMAGES",
        "LANDMARKS",
        "REJECTED",
        "KEYPOINTS",
        "LABELS",
        "PREDICTIONS",
        "OBSERVATIONS",
        "FACINGS",
        "OTHER_LANDMARKS",
    ):
        for column in getattr(schemas, name).names:
            assert f"`{column}`" in text, f"{name}.{column}"


def test_every_module_has_a_place_in_the_tree():
    """Those at the top and in the rooms that a run goes through."""
    tree = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    named = {word.strip("()/,:") for word in tree.split()}
    package = ROOT / "ray_kplm"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    modules = {
        path.name
        for folder in (package, package / "steps", package / "methods", package / "runtime")
        for path in folder.glob("*.py")
    }
    assert rooms | modules <= named | {"__init__.py"}, (rooms | modules) - named


def test_every_format_is_listed():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, form in FORMATS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert form.text in line


def test_the_readme_is_short_and_both_tables_of_expected_figures_agree():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.split()) <= 1200
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for start in ("| `kplm demo`:", "| `faces_cpu.yaml`:"):
        short, long = (
            next(line for line in page.splitlines() if line.startswith(start)) for page in (readme, benchmarks)
        )
        figures = [set(re.findall(r"\d+\.\d+|\d+ min", line)) for line in (short, long)]
        assert figures[0] <= figures[1], start


def test_numbered_citations_of_the_method_have_a_section():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "ray_kplm").rglob("*.py")]
    cited = {number for source in sources for number in re.findall(r"docs/method\.md (\d+)", source)}
    assert len(cited) > 5
    assert {f'<a id="method-{n}"></a>' for n in cited} <= set(re.findall(r'<a id="method-\d+"></a>', text))


def test_the_page_and_the_steps_in_the_documentation_are_those_of_the_code(tmp_path):
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    page = inspect.getsource(kplm.discover_landmarks)
    without_docstring = re.sub(r'    """.*?"""\n', "", page, flags=re.DOTALL)
    assert f"```python\n{without_docstring}```" in text
    dataset = SimpleNamespace(fingerprint="d", count=lambda split: 9, parts=lambda split: [], rows=lambda split: [])
    for task in record(Run.start(load_config(None, [f"run={tmp_path}", "stage1.rounds=1"])), dataset):
        line = " ".join([task.path, *(taken.path for taken in task.takes)])
        assert line in [" ".join(line.split()) for line in text.splitlines()]
