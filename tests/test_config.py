"""The configuration: which values are refused with which error, and the conversion to YAML and back."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re

import pytest
import yaml

from ray_kplm import config as module
from ray_kplm import config_rules
from ray_kplm.config import Config, MethodConfig, WorkerRange, from_dict, load_config
from ray_kplm.errors import ConfigError

BROKEN = [
    ("features_share", ["features_share=1.5"]),
    ("method.landmarks", ["method.landmarks=1"]),
    ("method.clusters", ["method.clusters=29"]),
    ("method.clusters", ["method.clusters=32768"]),
    ("network.depth", ["network.depth=0"]),
    ("network.image_size", ["network.image_size=100"]),
    ("network.image_size", ["network.image_size=0"]),
    ("network.norm", ["network.norm=batch", "compute.workers=2"]),
    ("network.norm", ["network.norm=batch", "compute.workers={min: 1, max: 2}"]),
    ("network.width", ["network.width=24"]),
    ("network.width", ["network.width=0"]),
    ("keypoints.outlier_share", ["keypoints.outlier_share=1"]),
    ("keypoints.outlier_share", ["keypoints.outlier_share=-0.1"]),
    ("stage1.batch_size", ["stage1.batch_size=0"]),
    ("stage1.batch_size", ["stage1.batch_size=6", "compute.workers=4"]),
    ("stage2.batch_size", ["stage2.batch_size=6", "compute.workers=4"]),
    ("stage1.learning_rate", ["stage1.learning_rate=0"]),
    ("stage2.learning_rate", ["stage2.learning_rate=-1e-4"]),
    ("stage1.warmup_iterations", ["stage1.warmup_iterations=0"]),
    ("stage1.rounds", ["stage1.rounds=-1"]),
    ("stage1.round_iterations", ["stage1.round_iterations=0"]),
    ("stage2.iterations", ["stage2.iterations=0"]),
    ("compute.workers", ["compute.workers=0"]),
    ("compute.data_workers", ["compute.data_workers=0"]),
    ("compute.extract_workers", ["compute.extract_workers=0"]),
    ("compute.shards", ["compute.shards=-1"]),
    ("compute.gpus_per_worker", ["compute.gpus_per_worker=-1"]),
    ("compute.gpus_per_worker", ["compute.gpus_per_worker=1.5"]),
    ("compute.gpus_per_worker", ["compute.gpus_per_worker=0.5", "compute.workers=2"]),
    ("compute.gpus_per_worker", ["compute.gpus_per_worker=0.5", "compute.workers={min: 1, max: 2}"]),
    ("compute.cpus_per_worker", ["compute.cpus_per_worker=-1"]),
    ("compute.cpus_per_worker", ["compute.cpus_per_worker=0"]),
    ("compute.threads", ["compute.threads=-1"]),
    ("compute.detect_workers", ["compute.detect_workers=-1"]),
    ("compute.rounds_per_fit", ["compute.rounds_per_fit=-1"]),
    ("compute.max_failures", ["compute.max_failures=-1"]),
    ("clustering.memory_gib", ["clustering.memory_gib=0"]),
    ("compute.checkpoint_iterations", ["compute.checkpoint_iterations=0"]),
    ("compute.batch_images", ["compute.batch_images=0"]),
    ("keypoints.limit", ["keypoints.limit=0"]),
    ("detection.calibration_images", ["detection.calibration_images=0"]),
    ("detection.nms_radius", ["detection.nms_radius=0"]),
    ("detection.points_per_landmark", ["detection.points_per_landmark=0"]),
    ("detection.warmup_points_per_landmark", ["detection.warmup_points_per_landmark=0"]),
    ("clustering.n_init", ["clustering.n_init=0"]),
    ("clustering.iterations", ["clustering.iterations=0"]),
    ("keypoints.nms", ["keypoints.nms=1"]),
    ("keypoints.scales", ["keypoints.scales=[]"]),
    ("keypoints.scales", ["keypoints.scales=[1.0, 0.0]"]),
    ("augment.warp", ["augment.warp=0.1"]),
    ("augment.extra", ["augment.extra=transforms"]),
    ("augment.paste", ["augment.paste=2"]),
    ("augment.paste_shift", ["augment.paste_shift=0.7"]),
    ("merging.every", ["merging.every=0"]),
    ("keypoints.detector", ["keypoints.detector=file", "keypoints.file=f", "method.kind=merge"]),
    ("stage2.training", ["stage2.training=joint", "method.kind=merge"]),
    ("template.rounds", ["template.rounds=0"]),
    ("template.candidates", ["template.candidates=0"]),
    ("template.outliers", ["template.outliers=0"]),
    ("template.min_matched", ["template.min_matched=2"]),
    ("template.distance", ["template.distance=0"]),
    ("merging.distance", ["merging.distance=0"]),
    ("merging.overlap", ["merging.overlap=0"]),
    ("keypoints.truth_share", ["keypoints.truth_share=1.5"]),
    ("keypoints.file", ["keypoints.file=", "keypoints.detector=file"]),
]


@pytest.mark.parametrize(("path", "overrides"), BROKEN, ids=[" ".join(overrides) for _, overrides in BROKEN])
def test_a_broken_rule_names_the_path_and_the_value(path, overrides):
    value = overrides[0].partition("=")[2]
    if value.startswith("["):
        shown = re.escape(value)
    else:
        shown = repr(value) if not value or value.isalpha() else rf"{float(value):g}(\.0)?"
    with pytest.raises(ConfigError, match=rf"^{path} = {shown}: ") as caught:
        load_config(None, overrides)
    assert "\n" not in str(caught.value)


def test_every_rule_is_broken_above():
    rules = {path for path, *_ in config_rules.all_rules(Config())}
    assert rules <= {path for path, _ in BROKEN}


@pytest.mark.parametrize(
    "overrides",
    [
        ["stage1.rounds=0"],
        ["keypoints.outlier_share=0"],
        ["method.landmarks=100"],
        ["network.norm=batch"],
        ["network.norm=batch", "compute.workers=2", "compute.gpus_per_worker=1"],
        ["stage1.batch_size=6", "stage2.batch_size=6", "compute.workers=4", "compute.scale_lr=true"],
        ["compute.gpus_per_worker=0.5", "compute.extract_workers=2", "compute.shards=2"],
        ["compute.gpus_per_worker=2", "compute.workers=2", "compute.cpus_per_worker=0"],
        ["compute.cpus_per_worker=0.5", "compute.max_failures=0"],
    ],
)
def test_the_edge_of_a_rule_is_allowed(overrides):
    load_config(None, overrides)


def test_workers_are_a_number_or_a_range():
    fixed, elastic = load_config(None, ["compute.workers=4"]), load_config(None, ["compute.workers={min: 2, max: 8}"])
    assert (fixed.compute.worker_range.min, fixed.compute.worker_range.max, fixed.compute.is_elastic) == (4, 4, False)
    assert elastic.compute.workers == WorkerRange(2, 8)
    assert elastic.compute.worker_numbers(12) == [2, 3, 4, 6]
    assert load_config(None, ["compute.workers.max=3", "stage1.batch_size=9"]).compute.worker_numbers(9) == [1, 3]
    assert from_dict(yaml.safe_load(yaml.safe_dump(elastic.to_dict()))) == elastic
    assert elastic.flat()["compute.workers.max"] == 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compute.workers={min: 0, max: 2}"], "compute.workers.min = 0: must be 1 to 4096"),
        (["compute.workers={min: 3, max: 2}"], "min must not be above max"),
        (["compute.workers={min: 1, max: 2}", "compute.scale_lr=true"], "must be one number"),
        (["compute.workers={min: 3, max: 5}", "stage2.batch_size=14"], "compute.workers = {min: 3, max: 5}: take"),
        (["compute.workers={min: 1, most: 2}"], "compute.workers.most: unknown key"),
        (["compute.workers={min: one}"], "compute.workers.min = 'one': must be of type int"),
        (["compute.workers="], "compute.workers = ''"),
        (["compute.workers=null"], "compute.workers = None"),
        (["compute.workers=some"], "compute.workers = 'some': must be of type int"),
    ],
)
def test_a_wrong_range_of_workers_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(None, ["stage1.batch_size=12", "stage2.batch_size=12", *overrides])


def test_the_error_about_an_image_size_names_a_valid_one():
    with pytest.raises(ConfigError, match=r"multiple of 64 .*; 128 is near"):
        load_config(None, ["network.image_size=100"])
    load_config(None, ["network.image_size=128"])


def test_rules_hold_however_a_configuration_is_made():
    with pytest.raises(ConfigError, match=r"method\.landmarks"):
        dataclasses.replace(Config(), method=MethodConfig(landmarks=1))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.landmark=3", r"^method\.landmark: unknown key; did you mean method\.landmarks\?"),
        ("stage1.learnin_rate=3", r"^stage1\.learnin_rate: unknown key; did you mean stage1\.learning_rate\?"),
        ("metod.landmarks=3", r"^metod: unknown key; did you mean method\?"),
        ("landmarks=3", r"^landmarks: unknown key; did you mean method\.landmarks\?"),
        ("batch_size=3", r"^batch_size: unknown key; did you mean stage1\.batch_size or stage2\.batch_size\?"),
        ("method.xyz=3", r"^method\.xyz: unknown key; known keys: kind, landmarks, clusters, mirror"),
    ],
)
def test_an_unknown_key_names_its_path_and_a_way_out(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.landmarks=ten", r"^method\.landmarks = 'ten': must be of type int"),
        ("method.landmarks=1.5", r"^method\.landmarks = 1\.5: must be of type int"),
        ("method.landmarks=true", r"^method\.landmarks = True: must be of type int"),
        ("clustering.spherical=1", r"^clustering\.spherical = 1: must be of type bool"),
        ("method.mirror=true", r"^method\.mirror = 'yes': must be one of auto, partners, facing, none"),
        ("stage1.margin=wide", r"^stage1\.margin = 'wide': must be of type float"),
        ("stage1.margin=true", r"^stage1\.margin = True: must be of type float"),
        ("network.norm=layer", r"^network\.norm = 'layer': must be one of group, batch"),
        ("augment.scale=[1, 2, 3]", r"^augment\.scale = \[1, 2, 3\]: must have 2 entries"),
        ("augment.scale=1", r"^augment\.scale = 1: must be a list"),
        ("stage1.decay_at=[0.5, late]", r"^stage1\.decay_at = 'late': must be of type float"),
        ("method=3", r"^method = 3: is a section with the keys kind, landmarks"),
        ("method.landmarks.deep=3", r"^method\.landmarks = \{'deep': 3\}: must be of type int"),
        ("run=[a]", r"^run = \['a'\]: must be of type str"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clustering.redos=3", "clustering.redos: is called clustering.n_init now"),
        ("compute.linear_rule=true", "compute.linear_rule: is called compute.scale_lr now"),
        ("keypoints.detector=truth_mix", "keypoints.detector = 'truth_mix': is called 'noisy_gt' now"),
        ("method.flip=true", "method.flip: is part of method.mirror (true with 'pairs': partners; false: none) now"),
        ("method.flip_map=pairs", "method.flip_map: is part of method.mirror"),
        ("clustering.redo=3", "clustering.redo: unknown key; known keys: iterations"),
        ("clustering.n_ini=3", "clustering.n_ini: unknown key; did you mean clustering.n_init?"),
        ("compute.scale_l=true", "compute.scale_l: unknown key; did you mean compute.scale_lr?"),
        ("n_init=3", "n_init: unknown key; did you mean clustering.n_init?"),
        ("keypoints.detector=noisy", "keypoints.detector = 'noisy': must be one of sift, orb"),
    ],
)
def test_a_renamed_key_or_value_is_an_error_that_names_the_new_one(override, message, tmp_path):
    with pytest.raises(ConfigError, match=rf"^{re.escape(message)}"):
        load_config(None, [override])
    path, _, value = override.partition("=")
    section, _, key = path.rpartition(".")
    (tmp_path / "c.yaml").write_text(f"{section}: {{{key}: {value}}}" if section else f"{key}: {value}")
    with pytest.raises(ConfigError, match=rf"^{re.escape(message)}"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("override", ["method.landmarks", "=3", ""])
def test_an_override_without_key_or_value_is_refused(override):
    with pytest.raises(ConfigError, match="key=value"):
        load_config(None, [override])


def test_an_override_below_a_value_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("method: {landmarks: 4}")
    with pytest.raises(ConfigError, match=r"^method\.landmarks\.deep: landmarks is a value, not a section"):
        load_config(tmp_path / "c.yaml", ["method.landmarks.deep=3"])


def test_overrides_beat_the_file_and_the_last_one_counts(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 3\nmethod: {landmarks: 4, clusters: 50}\n")
    config = load_config(tmp_path / "c.yaml", ["method.landmarks=5", "run=runs/a", "method.landmarks=6"])
    assert (config.seed, config.method.landmarks, config.method.clusters, config.run) == (3, 6, 50, "runs/a")
    assert config.network == Config().network


def test_values_are_read_as_the_fields_type(tmp_path):
    text = "stage1: {learning_rate: 1e-4, margin: 1, decay_at: [1e-1, 1]}\ncompute: {channels_last: no}\nrun: 7\n"
    (tmp_path / "c.yaml").write_text(text + "method: {landmarks: 8.0}\naugment: {scale: [1, 1.5]}\n")
    assert isinstance(yaml.safe_load(text)["stage1"]["learning_rate"], str)  # the trap
    config = load_config(tmp_path / "c.yaml", ["stage2.learning_rate=5e-5", "dataset="])
    assert config.stage1.learning_rate == 1e-4
    assert config.stage2.learning_rate == 5e-5
    assert config.stage1.decay_at == (0.1, 1.0)
    assert isinstance(config.stage1.margin, float)
    assert isinstance(config.method.landmarks, int)
    assert config.augment.scale == (1.0, 1.5)
    assert (config.compute.channels_last, config.run, config.dataset) == ("no", "7", "")


def test_text_is_kept_as_it_is_spelled(tmp_path):
    spelled = ["007", "0x1F", "1_000", "2024-01-01", "2024-13-45", "1:30", "9" * 5000, "12345678901234567890"]
    for text in spelled:
        assert load_config(None, [f"run={text}"]).run == text
        (tmp_path / "c.yaml").write_text(f"template: {{image: {text}}}")
        assert load_config(tmp_path / "c.yaml").template.image == text
    config = load_config(None, ["seed=0x1F", "method.landmarks=8.0"])
    assert (type(config.seed), config.seed, type(config.method.landmarks)) == (int, 31, int)


def test_no_file_and_an_empty_file_are_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(None) == load_config(tmp_path / "empty.yaml") == Config()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_folder_and_a_picture_are_no_configurations(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    for path in (tmp_path, tmp_path / "photo.png"):
        with pytest.raises(ConfigError, match=f"{path.name}: not readable as a YAML file"):
            load_config(path)


@pytest.mark.parametrize(
    ("text", "message"), [("seed: [1,\nrun: {", "not readable as YAML"), ("- 1\n- 2\n", "holds a list")]
)
def test_an_unusable_file_is_named_in_one_line(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*{message}") as caught:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


def test_round_trip_through_yaml():
    config = load_config(None, ["seed=5", "augment.scale=[0.5, 2]", "stage1.decay_at=[0.3]", "method.mirror=none"])
    assert from_dict(config.to_dict()) == config
    assert from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_flat_holds_every_leaf_by_its_dotted_path():
    flat = load_config(None, ["stage1.rounds=7"]).flat()
    assert flat["stage1.rounds"] == 7
    assert flat["seed"] == 0
    assert flat["augment.scale"] == [0.8, 1.2]
    sections = [f for f in dataclasses.fields(Config) if dataclasses.is_dataclass(getattr(Config(), f.name))]
    leaves = sum(len(dataclasses.fields(getattr(Config(), f.name))) for f in sections)
    assert len(flat) == leaves + len(dataclasses.fields(Config)) - len(sections)


def test_every_field_and_every_section_is_documented():
    classes = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
    sections = {node.name for node in classes if ast.get_docstring(node)}
    assert sections == {node.name for node in classes}
    undocumented, fields = [], 0
    for node in classes:
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) not in sections:
                fields += 1
                text = following.value if isinstance(following, ast.Expr) else None
                if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
                    undocumented.append(f"{node.name}.{ast.unparse(statement.target)}")
    assert fields == len(Config().flat()) + len(dataclasses.fields(WorkerRange))  # in place of one number
    assert not undocumented


ODD_PATHS = [
    "50% #1", "a #b", "#1", "a: b", "- a", "&x y", "*x", "!x", "%20x", "what?x=1", "2026-11-30", "it's", "=", "<<", "[x",
    "a\tb", "größe",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_PATHS)
def test_a_path_may_hold_what_begins_something_in_yaml(text):
    assert load_config(None, [f"run={text}"]).run == text


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("0.5", 0.5), ("5", 5.0), ("'0.25'", 0.25), (".5", 0.5), ("+1", 1.0)]
)
def test_a_number_is_read_as_in_yaml(text, value):
    assert load_config(None, [f"stage1.learning_rate={text}"]).stage1.learning_rate == value
