"""Which images the outlier rule is made from; no Ray is started."""

import numpy as np
import pytest

from ray_kplm.config import KeypointsConfig
from ray_kplm.datasets.selection import Selection, everything
from ray_kplm.steps import quality
from ray_kplm.steps.detect import _Find, _outlier_rule
from ray_kplm.steps.parts import Pool
from ray_kplm.storage import Folder


class Sampled(Exception):
    """Raised in place of a sample, with its seed."""


def sample(self: Selection, count: int, seed: tuple[int, ...], parts: int | None = None) -> Selection:
    raise Sampled(*seed)


def test_the_outlier_rule_and_the_quality_are_made_from_independent_samples(tmp_path, monkeypatch):
    folder, whole = Folder.at(tmp_path), everything(["part-00000.parquet"], [1000])
    find = _Find(folder, folder, KeypointsConfig(), 5)
    with monkeypatch.context() as patch:
        patch.setattr(Selection, "sample", sample)
        with pytest.raises(Sampled) as sampled:
            _outlier_rule(find, whole, 5, Pool(1))
    of_rule, of_quality = (whole.sample(100, seed).rows[0] for seed in (sampled.value.args, (5, quality._SAMPLE)))
    assert len(np.intersect1d(of_rule, of_quality)) < 30  # 10 are expected by chance
