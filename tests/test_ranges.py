"""Ranges of numbers: every number has one, and what is out of it is one line with key, value and range."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Annotated

import pytest
import yaml

from ray_kplm import ready_configs
from ray_kplm.config import Config, from_dict, load_config
from ray_kplm.config_schema import config_schema
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.errors import ConfigError
from ray_kplm.experiments.sweep import SweepOptions
from ray_kplm.inference.images import PredictOptions
from ray_kplm.ranges import Range, range_faults, range_of
from ray_kplm.runtime.tune import Halving


def number_fields(kind, prefix=""):
    """Path and type of every field that holds numbers, those of sections and of unions too."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from number_fields(hint, f"{prefix}{name}.")
            continue
        for part in typing.get_args(hint):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from number_fields(part, f"{prefix}{name}.")
        if holds_numbers(hint):
            yield f"{prefix}{name}", hint


def holds_numbers(hint) -> bool:
    if typing.get_origin(hint) is typing.Literal or dataclasses.is_dataclass(hint):
        return False
    return hint in (int, float) or any(holds_numbers(part) for part in typing.get_args(hint) if part is not ...)


FIELDS = list(number_fields(Config))
OPTIONS = [
    (kind, name, hint)
    for kind in (IngestOptions, PredictOptions, SweepOptions, Halving)
    for name, hint in number_fields(kind)
    if "." not in name  # those of a section are its own
]


def test_all_numbers_are_found():
    assert len(FIELDS) > 90
    assert {"seed", "augment.scale", "compute.workers", "compute.workers.min", "stage1.decay_at"} <= dict(FIELDS).keys()


@pytest.mark.parametrize(("path", "hint"), FIELDS, ids=[path for path, _ in FIELDS])
def test_every_number_of_the_configuration_has_a_range_that_holds(path, hint):
    allowed = range_of(hint)
    assert allowed is not None, f"{path} has no range"
    assert math.isfinite(allowed.low)
    assert math.isfinite(allowed.high)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    wrong = [allowed.low - 1, allowed.high + 1, math.nan, math.inf, -math.inf, 1e30]
    wrong += [allowed.low] * allowed.above + [allowed.high] * allowed.below
    for number in wrong:
        if "auto" in parts and number == 0:
            continue
        spelled = number if math.isfinite(number) else {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(number)]
        value = f"[{spelled}, {spelled}]" if origin is tuple else spelled
        with pytest.raises(ConfigError) as caught:
            load_config(None, [f"{path}={value}"])
        assert str(caught.value).startswith(f"{path} = ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name", "hint"), OPTIONS, ids=[f"{k.__name__}.{n}" for k, n, _ in OPTIONS])
def test_every_number_of_the_options_has_a_range_that_is_checked(kind, name, hint):
    allowed = range_of(hint)
    assert allowed is not None, f"{kind.__name__}.{name} has no range"
    needed = {"over": ["seed=1,2"]} if kind is SweepOptions else {}
    for number in (allowed.low - 1, allowed.high + 1, math.nan, math.inf):
        with pytest.raises(ConfigError, match=str(allowed)):
            kind(**{**needed, name: number})


NONSENSE = [
    "seed=99999999999999999999",
    "seed=-3",
    "augment.rotate=nan",
    "augment.rotate=.nan",
    "augment.blur=-1",
    "augment.noise=inf",
    "augment.hue=[0.4, -0.4]",
    "augment.brightness=[-1, 1]",
    "augment.contrast=[1.3, 0.85]",
    "augment.scale=[0, 0]",
    "augment.colour_share=30",
    "network.width=-16",
    "network.descriptor_dim=0",
    "network.groups=0",
    "network.depth=60",
    "network.image_size=1000000",
    "method.landmarks=1000000000",
    "method.landmarks=-1",
    "method.clusters=1e9",
    "keypoints.outlier_sample=0",
    "keypoints.confidence=-0.5",
    "keypoints.truth_shift=-1",
    "stage1.weight_decay=-1e-5",
    "stage1.margin=-0.8",
    "stage1.negative_pairs=-1",
    "stage1.heatmap_sigma=-1",
    "stage1.frame_gap=-1",
    "stage1.decay_at=[-0.1]",
    "stage1.learning_rate=1e400",
    "stage1.descriptor_weight=-10",
    "stage2.backbone_factor=-0.1",
    "stage2.joint_weight=nan",
    "detection.limit=0",
    "detection.fixed_threshold=1.5",
    "clustering.tolerance=-1",
    "clustering.start_sample=0",
    "clustering.fit_points=-1",
    "clustering.memory_gib=1e12",
    "template.sample=0",
    "template.distil_from=-1",
    "template.confidence=2",
    "merging.min_points=-500",
    "limits.min_points_per_image=-2",
    "limits.min_image_share=10",
    "compute.workers=100000",
    "compute.threads=1e12",
    "round_images=-1",
]


@pytest.mark.parametrize("override", NONSENSE)
def test_nonsense_is_one_line_with_key_value_and_range(override):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{key} = .*: .*(must be|must not be)") as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)


def test_a_number_in_a_range_of_any_kind_is_kept():
    allowed = Range(0, 1, above=True, below=True)
    assert [allowed.holds(v) for v in (0, 1e-9, 0.5, 1, -1, math.nan)] == [False, True, True, False, False, False]
    assert str(allowed) == "above 0 to below 1"
    assert str(Range(1, 10**9)) == "1 to 1,000,000,000"
    assert str(Range(0.1, 4096)) == "0.1 to 4096"
    assert Range(2, 3, or_zero=True).holds(0)
    assert str(Range(2, 3, or_zero=True)) == "0 or 2 to 3"


def test_ranges_of_any_dataclass_are_checked():
    @dataclasses.dataclass
    class Inner:
        share: Annotated[float, Range(0, 1)] = 2.0

    faults = list(range_faults(Inner(), "outer."))
    assert faults == [("outer.share", 2.0, "must be 0 to 1")]


def test_ready_configurations_and_the_schema_have_no_number_out_of_range():
    for name in ready_configs.names():
        from_dict(yaml.safe_load(ready_configs.path_of(name).read_text(encoding="utf-8")))
    schema = config_schema()["properties"]["stage1"]["properties"]
    assert (schema["margin"]["minimum"], schema["margin"]["maximum"]) == (0, 4)
    assert schema["learning_rate"]["exclusiveMinimum"] == 0
    assert schema["decay_at"]["items"]["maximum"] == 1
