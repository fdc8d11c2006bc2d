"""The configurations that the project ships."""

from pathlib import Path

import pytest

from ray_kplm import ready_configs
from ray_kplm.config import Config, load_config
from ray_kplm.errors import ConfigError
from ray_kplm.ready_configs import FOLDER

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.name)
def test_ready_configurations_load(path):
    assert isinstance(load_config(path), Config)


@pytest.mark.parametrize("name", ready_configs.names())
def test_ready_configurations_are_found_by_name_and_by_path(name, tmp_path, monkeypatch):
    assert load_config(ROOT / "jobs" / "configs" / f"{name}.yaml") == load_config(FOLDER / f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_config(name) == load_config(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", ready_configs.names())
def test_the_first_line_is_a_comment_about_the_purpose(name):
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    assert ready_configs.summary(name).endswith(".")  # a sentence, not its beginning


def test_a_file_hides_a_ready_configuration_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("seed: 77")
    assert load_config("demo").seed == 77
    Path("faces_cpu").mkdir()
    assert load_config("faces_cpu") == load_config(FOLDER / "faces_cpu.yaml")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("face_cpu", "did you mean faces_cpu"),
        ("jobs/configs/thesis_face.yaml", "did you mean thesis_faces, "),
        ("faces_cpu.yaml", "did you mean faces_cpu, "),
        ("pyproject.toml/demo.yaml", "did you mean demo?"),  # below a file: where a checkout left the link as text
        ("zzz", "`kplm configs` lists"),
    ],
)
def test_an_unknown_name_is_an_error_with_similar_names(name, hint, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError) as error:
        load_config(name)
    message = str(error.value)
    assert message.startswith(f"{name}: no such configuration file")
    assert hint in message
    assert "\n" not in message


def test_the_thesis_configuration_has_the_thesis_numbers():
    config = load_config(FOLDER / "thesis_faces.yaml")
    assert (config.method.landmarks, config.method.clusters) == (30, 100)
    network = config.network
    assert (network.image_size, network.width, network.depth, network.descriptor_dim) == (256, 256, 4, 256)
    stage1 = config.stage1
    assert stage1.warmup_iterations + stage1.rounds * stage1.round_iterations == 200_000
    assert (stage1.margin, stage1.negative_pairs, stage1.descriptor_weight) == (0.8, 5000, 10)
    assert (stage1.pair_weighting, stage1.positives, stage1.heatmap_sigma) == ("all", "pair", 0)
    assert config.stage2.backbone_factor == 0.1


def test_the_configuration_of_chapter_5_has_its_numbers():
    config = load_config(FOLDER / "thesis_faces_merge.yaml")
    assert config.keypoints.scales == (1.0, 1.3, 1.6)
    stage1, stage2 = config.stage1, config.stage2
    assert (stage1.learning_rate, stage1.decay, stage1.weight_decay, stage1.batch_size) == (5e-4, "cosine", 1e-5, 16)
    assert stage1.warmup_iterations + stage1.rounds * stage1.round_iterations == 300_000
    assert (stage2.learning_rate, stage2.batch_size, stage2.iterations) == (5e-4, 64, 80_000)
    assert [share * stage2.iterations for share in stage2.decay_at] == [50_000, 65_000]


@pytest.mark.parametrize(("name", "landmarks"), [("thesis_faces_template", 13), ("demo_template", 10)])
def test_the_configurations_of_chapter_4_detect_as_many_points_as_their_template_has(name, landmarks):
    config = load_config(FOLDER / f"{name}.yaml")
    assert config.method.landmarks == landmarks
    assert config.detection.points_per_landmark >= 1
