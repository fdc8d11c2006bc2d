"""The configurations that the project ships."""

from pathlib import Path

import pytest

from ray_kplm.config import Config, load

FOLDER = Path(__file__).parent.parent / "jobs" / "configs"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.name)
def test_they_load(path):
    assert isinstance(load(path), Config)


def test_the_thesis_configuration_has_the_thesis_numbers():
    config = load(FOLDER / "thesis_faces.yaml")
    assert (config.method.landmarks, config.method.clusters) == (30, 100)
    network = config.network
    assert (network.image_size, network.width, network.depth, network.descriptor_dim) == (256, 256, 4, 256)
    stage1 = config.stage1
    assert stage1.warmup_iterations + stage1.rounds * stage1.round_iterations == 200_000
    assert (stage1.margin, stage1.negative_pairs, stage1.descriptor_weight) == (0.8, 5000, 10)
    assert (stage1.pair_weighting, stage1.positives, stage1.heatmap_sigma) == ("all", "pair", 0)
    assert config.stage2.backbone_factor == 0.1
