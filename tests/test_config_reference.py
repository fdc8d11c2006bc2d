"""The configuration reference is that of the configuration."""

from pathlib import Path

import pytest

from ray_kplm.config import Config
from ray_kplm.config_reference import reference

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


def test_the_committed_page_is_current():
    now = "python -m ray_kplm.config_reference > docs/configuration.md"
    assert PAGE.read_text(encoding="utf-8") == reference(), f"run {now}"


def test_every_key_has_a_line_with_its_default_and_a_sentence():
    lines = reference().splitlines()
    for path in Config().flat():
        (line,) = [line for line in lines if line.startswith(f"* **`{path}`**")]
        assert ", default `" in line
        assert len(line.split("`. ", 1)[1]) > 10, line


@pytest.mark.parametrize(
    "line",
    [
        '* **`method.kind`**: one of `kplm`, `merge`, `template`, default `"kplm"`. ',
        "* **`augment.scale`**: two numbers `[low, high]`, each 0.05 to 20, default `[0.8, 1.2]`. Zoom factor.",
        "* **`stage1.rounds`**: whole number, 0 to 100,000, default `34`. ",
        "* **`compute.workers`**: whole number, 1 to 4096, or `{min: ..., max: ...}`, default `1`. ",
        "* **`method.clusters`**: whole number, 2 to 32,767, or `auto`, default `100`. ",
        "* **`template.outliers`**: number, above 0 to below 1, default `0.1`. ",
        "* **`stage1.decay_at`**: list of numbers, each 0 to 1, default `[0.75, 0.9]`. ",
    ],
)
def test_types_and_defaults_read_as_in_yaml(line):
    assert line in reference()
