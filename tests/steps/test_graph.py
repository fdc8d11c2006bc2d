"""What a step's fingerprint covers."""

from types import SimpleNamespace

import pytest

from ray_kplm.config import load
from ray_kplm.methods import build_method
from ray_kplm.run import Run
from ray_kplm.steps.graph import Steps

DATASET = SimpleNamespace(
    fingerprint="d", count=lambda split: 60, parts=lambda split: ["part-00000.parquet"], rows=lambda split: [60]
)


def fingerprints(folder, kind: str, *overrides: str) -> dict[str, str]:
    config = load(None, [f"run={folder}", f"method.kind={kind}", "stage1.rounds=1", *overrides])
    run = Run.start(config)
    return {step.folder.path.removeprefix(run.folder.path + "/"): step.fingerprint
            for step in Steps(run, DATASET, build_method(config))}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "override", "first"),
    [
        ("merge", "keypoints.scales=[1.0, 1.3]", "keypoints"),
        ("kplm", "stage1.decay=cosine", "rounds/000/train"),
        ("template", "stage1.decay=cosine", "rounds/000/train"),
        ("template", "stage2.decay_at=[0.5]", "stage2/000/train"),
        ("template", "template.sample=50", "template/labels"),
    ],
)
def test_an_option_changes_the_first_step_that_reads_it_and_all_that_follow(tmp_path, kind, override, first):
    before, after = fingerprints(tmp_path, kind), fingerprints(tmp_path, kind, override)
    changed = [before[path] != after[path] for path in before]
    place = list(before).index(first)
    assert changed == [False] * place + [True] * (len(before) - place)
