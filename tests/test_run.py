"""A run directory: which steps count as finished, are reused, or are refused."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from ray_kplm.config import Config, load_config
from ray_kplm.config_names import as_recorded
from ray_kplm.errors import RunError
from ray_kplm.run import Run, fingerprint, round_path
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import seal, seal_text

READS = {"network": {"width": 64, "norm": "group"}, "seed": 3, "scale": (0.8, 1.2)}
INPUTS = {"dataset": "aaa", "keypoints": "bbb"}


def tree(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run.start(load_config(None, [f"run={tmp_path / 'run'}"]))
    run.save()
    return run


def make(run: Run, path: str, **changes):
    return run.step(path, changes.get("name", "train"), changes.get("reads", READS), changes.get("inputs", INPUTS))


def refusal(step) -> str:
    with pytest.raises(RunError) as caught:
        step.manifest()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_tree_of_a_run(run):
    for path in ("keypoints", "rounds/000/train", "rounds/000/labels", "rounds/001/train", "stage2"):
        step = make(run, path)
        assert step.manifest() is None
        step.begin()
        step.folder.write_bytes("part-00000.parquet", b"")
        if path != "stage2":
            step.finish(images=7)
    assert tree(Path(run.folder.path)) == [
        "config.yaml",
        "keypoints/manifest.json",
        "keypoints/part-00000.parquet",
        "number_format.json",
        "rounds/000/labels/manifest.json",
        "rounds/000/labels/part-00000.parquet",
        "rounds/000/train/manifest.json",
        "rounds/000/train/part-00000.parquet",
        "rounds/001/train/manifest.json",
        "rounds/001/train/part-00000.parquet",
        "stage2/.written/part-00000.parquet",
        "stage2/claim.json",
        "stage2/part-00000.parquet",
        "versions.json",
    ]
    assert run.rounds() == [0]  # of round 1 only the training is published
    assert run.manifest("keypoints")["images"] == 7
    assert run.manifest("stage2") is None
    assert round_path(12) == "rounds/012"


def test_a_finished_step_is_reused(run):
    made = make(run, "keypoints").finish(images=7, points=[1, 2])
    again = make(Run.open(str(run.folder)), "keypoints").manifest()
    assert again == made
    assert again["points"] == [1, 2]
    assert again["inputs"] == INPUTS


def test_a_half_written_folder_is_not_done(run):
    step = make(run, "keypoints")
    assert step.manifest() is None
    step.begin()
    step.folder.write_bytes("part-00000.parquet", b"")
    assert make(run, "keypoints").manifest() is None  # the same step goes on with it
    assert run.manifest("keypoints") is None


def test_a_changed_configuration_names_key_old_and_new_value(run):
    make(run, "keypoints").finish()
    reads = READS | {"network": {"width": 128, "norm": "group"}}
    message = refusal(make(run, "keypoints", reads=reads))
    assert "network.width was 64, is 128" in message
    assert "finished" in message
    assert "norm" not in message
    assert "seed" not in message
    assert "input" not in message


def test_an_added_or_removed_key_is_named(run):
    make(run, "keypoints").finish()
    assert "extra was None, is 1" in refusal(make(run, "keypoints", reads=READS | {"extra": 1}))
    assert "seed was 3, is None" in refusal(make(run, "keypoints", reads={k: READS[k] for k in ("network", "scale")}))


def test_a_changed_input_is_named(run):
    make(run, "keypoints").finish()
    message = refusal(make(run, "keypoints", inputs=INPUTS | {"dataset": "ccc"}))
    assert re.search(r"input changed \(dataset\)", message)
    assert "was" not in message
    assert "another set of inputs" in refusal(make(run, "keypoints", inputs={"dataset": "aaa"}))


def test_another_version_of_a_step_is_refused(run):
    make(run, "keypoints").finish()
    assert "another version of the step" in refusal(make(run, "keypoints", name="train-2"))


def test_work_begun_under_another_configuration_is_refused(run):
    make(run, "keypoints").begin()
    message = refusal(make(run, "keypoints", reads=READS | {"seed": 4}))
    assert "begun" in message
    assert "seed was 3, is 4" in message
    assert make(run, "keypoints").manifest() is None


@pytest.mark.parametrize("finished", [True, False])
def test_is_current_deletes_a_result_of_another_configuration(run, finished):
    before = make(run, "evaluation/test")
    before.begin()
    if finished:
        before.finish()
    before.folder.write_bytes("part-00000.parquet", b"decoded otherwise")
    step = make(run, "evaluation/test", reads=READS | {"decoder": 2})
    assert not step.is_current()
    assert not step.folder.names()
    step.finish()
    assert step.is_current()


def test_a_claim_left_beside_the_manifest_does_not_matter(run):
    step = make(run, "keypoints")
    step.begin()
    claim = step.folder.read_bytes("claim.json")
    step.finish()
    step.folder.write_bytes("claim.json", claim)  # killed between the two writes
    assert make(run, "keypoints").manifest() is not None


def test_fingerprints_depend_on_name_configuration_and_inputs_alone(run):
    step = make(run, "keypoints")
    assert step.fingerprint == make(run, "elsewhere", reads=dict(reversed(READS.items()))).fingerprint
    others = [
        make(run, "keypoints", name="other"),
        make(run, "keypoints", reads=READS | {"seed": 4}),
        make(run, "keypoints", inputs=INPUTS | {"dataset": "ccc"}),
    ]
    assert len({step.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_run_is_opened_again_with_its_configuration(run):
    assert Run.open(str(run.folder)).config == run.config
    make(run, "keypoints").finish()
    assert Run.start(run.config).manifest("keypoints") is not None
    versions = run.folder.read_json("versions.json")
    assert {"python", "torch", "ray", "numpy"} <= set(versions)


def on_cpu(monkeypatch, *flags: str) -> None:
    """From now on this machine's CPU has these features."""
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: list(flags))


def formats(run: Run) -> tuple[str, str]:
    return run.resolved.compute.precision, run.resolved.compute.channels_last


def test_the_number_format_is_decided_when_a_run_is_begun(tmp_path, monkeypatch):
    config = load_config(None, [f"run={tmp_path / 'run'}"])
    on_cpu(monkeypatch, "avx2", "avx512_bf16")
    assert formats(Run.start(config).save()) == ("bf16", "no")
    on_cpu(monkeypatch, "avx2")
    for run in (Run.start(config), Run.start(config).save(), Run.open(config.run)):
        assert formats(run) == ("bf16", "no")
        assert run.config == config  # what was asked for stays, and fingerprints with it
    other = load_config(None, [f"run={tmp_path / 'other'}"])
    assert formats(Run.start(other).save()) == ("fp32", "no")


def test_a_run_begun_on_gpus_keeps_its_number_format(tmp_path, monkeypatch):
    on_cpu(monkeypatch, "avx2")
    config = load_config(None, [f"run={tmp_path / 'run'}", "compute.gpus_per_worker=1"])
    assert formats(Run.start(config).save()) == ("bf16", "yes")
    without = load_config(None, [f"run={tmp_path / 'run'}"])
    assert formats(Run.start(without).save()) == ("bf16", "yes")


def test_a_run_begun_before_there_was_compilation_goes_on_without(tmp_path):
    config = load_config(None, [f"run={tmp_path / 'run'}", "compute.gpus_per_worker=1"])
    run = Run.start(config).save()
    assert run.resolved.compute.compile == "yes"
    stored = yaml.safe_load(run.folder.read_bytes("config.yaml").decode())
    del stored["compute"]["compile"]
    run.folder.write_bytes("config.yaml", seal_text(yaml.safe_dump(stored, sort_keys=False)))
    run.folder.write_json("number_format.json", seal({"precision": "bf16", "channels_last": "yes"}))
    for old in (Run.open(config.run), Run.start(config).save()):
        assert (old.config.compute.compile, old.resolved.compute.compile) == ("auto", "no")
        assert formats(old) == ("bf16", "yes")


def test_a_configured_number_format_does_not_depend_on_the_machine(tmp_path, monkeypatch):
    on_cpu(monkeypatch, "amx_bf16")
    changes = [f"run={tmp_path / 'run'}", "compute.precision=fp32", "compute.channels_last=yes"]
    assert formats(Run.start(load_config(None, changes)).save()) == ("fp32", "yes")


def test_a_run_without_a_number_format_gets_one(tmp_path, monkeypatch):
    config = load_config(None, [f"run={tmp_path / 'run'}"])
    run = Run.start(config).save()
    run.folder.delete_file("number_format.json")
    on_cpu(monkeypatch, "amx_bf16")
    assert formats(Run.open(config.run)) == ("bf16", "no")
    assert "number_format.json" not in tree(tmp_path / "run")
    Run.start(config).save()
    on_cpu(monkeypatch, "avx2")
    assert formats(Run.open(config.run)) == ("bf16", "no")


@pytest.mark.parametrize("inside", ["photo.jpg", "album/photo.jpg"])
def test_a_foreign_folder_is_left_alone(tmp_path, inside):
    Folder.at(tmp_path).write_bytes(inside, b"")
    with pytest.raises(RunError, match="is not empty and no run directory"):
        Run.start(load_config(None, [f"run={tmp_path}"]))
    assert tree(tmp_path) == [inside]


def test_an_empty_folder_becomes_a_run(tmp_path):
    run = Run.start(load_config(None, [f"run={tmp_path}"]))
    assert tree(tmp_path) == []  # a refused configuration must not have replaced the one of the run
    run.save()
    assert tree(tmp_path) == ["config.yaml", "number_format.json", "versions.json"]


def test_a_run_needs_a_name_and_a_place(tmp_path):
    with pytest.raises(RunError, match="run = ''"):
        Run.start(load_config(None))
    with pytest.raises(RunError, match="no run directory"):
        Run.open(str(tmp_path / "nowhere"))
    assert tree(tmp_path) == []


NEW_NAMES = ["clustering.n_init=3", "compute.scale_lr=true", "keypoints.detector=noisy_gt"]


def renamed_sections(config: Config) -> dict[str, dict]:
    """The sections with renamed keys, as manifests record them."""
    layout = ("workers", "scale_lr", "precision", "channels_last")
    sections = {
        "keypoints": asdict(config.keypoints),
        "clustering": asdict(config.clustering),
        "compute": {name: getattr(config.compute, name) for name in layout},
    }
    return {name: as_recorded(name, values) for name, values in sections.items()}


def test_a_run_that_was_stored_under_old_names_is_opened_and_its_steps_are_reused(tmp_path):
    config = load_config(None, [f"run={tmp_path / 'run'}", *NEW_NAMES])
    run = Run.start(config).save()
    make(run, "rounds/000/labels", reads=renamed_sections(config)).finish()
    manifest = run.manifest("rounds/000/labels")
    assert manifest["reads"]["clustering"]["redos"] == 3
    assert manifest["reads"]["compute"]["linear_rule"] is True
    assert manifest["reads"]["keypoints"]["detector"] == "truth_mix"

    text = (
        run.folder.read_bytes("config.yaml").decode().partition("\n")[2]
    )  # without the hash, which is newer than the names
    for new, old in (("n_init: 3", "redos: 3"), ("scale_lr: true", "linear_rule: true"), ("noisy_gt", "truth_mix")):
        assert text.count(new) == 1
        text = text.replace(new, old)
    run.folder.write_bytes("config.yaml", text.encode())
    opened = Run.open(config.run)
    assert opened.config == config
    assert make(opened, "rounds/000/labels", reads=renamed_sections(opened.config)).manifest() == manifest


def begun_before(folder: Path, *, flip: bool) -> Run:
    """A run whose configuration was stored before there were facings, boxes in rounds, pasted objects and found background."""
    run = Run.start(load_config(None, [f"run={folder}"])).save()
    tree = yaml.safe_load(run.folder.read_bytes("config.yaml"))
    del tree["method"]["mirror"], tree["detection"]["inside_box"], tree["augment"]["paste"]
    tree["method"] |= {"flip": flip, "flip_map": "pairs", "drop_static": False}
    run.folder.write_bytes("config.yaml", yaml.safe_dump(tree).encode())
    return run


@pytest.mark.parametrize(("flip", "mirror"), [(True, "partners"), (False, "none")])
def test_a_run_that_was_begun_before_the_mirror_was_chosen_goes_on_as_it_began(tmp_path, flip, mirror):
    config = begun_before(tmp_path / "run", flip=flip).config
    assert config.method.mirror == "auto"
    for _ in range(2):  # saving does not make it another run
        run = Run.start(config)
        method = run.config.method
        assert (method.mirror, method.drop_static) == (mirror, "no")
        assert (run.config.detection.inside_box, run.config.augment.paste) == (False, 0)
        run.save()
        assert Run.open(config.run).config == run.config


def test_a_value_that_is_no_default_counts_in_a_run_that_was_begun_before(tmp_path):
    before = begun_before(tmp_path / "run", flip=True).config
    config = load_config(None, [f"run={before.run}", "method.mirror=facing"])
    assert Run.start(config).save().config.method.mirror == "facing"
    assert Run.start(before).config.method.mirror == "auto"  # stored under the new key
    assert not Run.start(before).config.detection.inside_box


def test_a_run_that_was_begun_with_the_new_keys_is_not_changed(tmp_path):
    config = load_config(None, [f"run={tmp_path}", "method.mirror=none", "detection.inside_box=false"])
    Run.start(config).save()
    assert Run.start(config).config == config
    assert Run.start(load_config(None, [f"run={tmp_path}"])).config == load_config(None, [f"run={tmp_path}"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "06e151f826b04d5807b0b8d27aadd57debe0e64fcdd45e32560ff7de598388d8"),
        (NEW_NAMES, "69f96ccca68cf21de145b636ea3cf702b76fbc956196dfe041e462cc2afdcda2"),
    ],
)
def test_fingerprints_are_those_of_before_the_keys_were_renamed(overrides, expected):
    """Computed by the version before, with redos, linear_rule and truth_mix."""
    assert fingerprint("step", renamed_sections(load_config(None, overrides)), {}) == expected


def test_a_steps_state_is_what_is_on_storage(tmp_path):
    run = Run.start(load_config(None, [f"run={tmp_path}"]))
    step, other = (run.step("rounds/000/train", "train", {"seed": seed}, {}) for seed in (0, 1))
    assert step.state() == "to do"
    step.begin()
    assert step.state() == "begun"
    assert other.state() == "stale"
    step.finish()
    assert step.state() == "done"
