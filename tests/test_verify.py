"""`kplm verify`: everything damaged is found and named, and what is removed is made again by the commands that are printed."""

import json
import shutil
from pathlib import Path

import pytest

from ray_kplm import LandmarkDetector
from ray_kplm.cli.main import main
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset, dataset_folder
from ray_kplm.errors import DamageError, RunError
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import seal_text
from ray_kplm.storage.integrity import _checked, _published
from ray_kplm.verify import DAMAGED, LOST, UNRECORDED, verify
from tests.storage.test_integrity import change


def write_run(root: Path) -> Run:
    run = Run.start(load_config(None, [f"run={root / 'run'}"])).save()
    for path, files in (
        ("keypoints", ["part-00000.parquet", "outliers.npz"]),
        ("rounds/000/labels", ["part-00000.parquet", "../clusters.npz"]),
        ("stage2", ["network.pt", "channels.json"]),
        ("evaluation/stage2/test", ["part-00000.parquet"]),
    ):
        step = run.step(path, path, {}, {})
        step.begin()
        for name in files:
            folder, base = step.folder.place(name)
            folder.write_bytes(base, json.dumps(f"{path}/{name}" * 20).encode())
        step.finish()
    (run.folder / "evaluation").write_json("metrics.json", {"nme": 3.5})
    run.folder.write_json("mlflow.json", {"run_id": "0"})
    return run


def write_dataset(root: Path) -> Dataset:
    folder = dataset_folder(Folder.at(root / "data"))
    folder.write_json("dataset.json", {"name": "cats", "fingerprint": "f"})
    for split in ("train", "test"):
        (folder / split / "images").write_bytes("part-00000.parquet", split.encode() * 50)
    splits = {split: {"images": 1, "parts": ["part-00000.parquet"], "rows": [1]} for split in ("train", "test")}
    folder.publish({"kind": "dataset", "fingerprint": "f", "splits": splits, "landmarks": 0}, [])
    return Dataset.open(folder)


def found(folder: Folder) -> dict[str, str]:
    return {finding.path: finding.state for finding in verify(folder).findings}


def test_nothing_is_wrong_with_a_run_and_a_dataset(tmp_path):
    run, dataset = write_run(tmp_path), write_dataset(tmp_path)
    assert found(run.folder) == found(dataset.root.unchecked) == {}
    assert (verify(run.folder).files, verify(run.folder).kind) == (9, "run")
    assert (verify(dataset.root.unchecked).files, verify(dataset.root.unchecked).kind) == (3, "dataset")


FILES = [
    "keypoints/part-00000.parquet", "keypoints/outliers.npz", "keypoints/manifest.json", "rounds/000/clusters.npz",
    "rounds/000/labels/manifest.json", "stage2/network.pt", "stage2/channels.json", "stage2/manifest.json", "config.yaml",
    "number_format.json", "evaluation/stage2/test/part-00000.parquet",
]  # fmt: skip


@pytest.mark.parametrize("fault", ["flip", "delete"])
@pytest.mark.parametrize("name", FILES)
def test_every_fault_is_found_and_repaired_to_what_continues(tmp_path, name, fault):
    run = write_run(tmp_path)
    change(tmp_path / "run" / name, fault)
    verification = verify(run.folder)
    states = {finding.path: finding.state for finding in verification.findings}
    if fault == "delete" and name.endswith("manifest.json"):
        assert states == {}  # an unfinished step, which `kplm train` does
        return
    if fault == "delete" and name == "number_format.json":
        assert states == {}  # it is decided again
        return
    assert states == {name: LOST if fault == "delete" else DAMAGED}
    assert verification.commands()[0] == f"kplm verify {run.folder} --repair"
    repaired = verify(run.folder, repair=True)
    assert repaired.repaired
    assert found(run.folder) in ({}, {"config.yaml": LOST})
    again = Run.start(load_config(None, [f"run={tmp_path / 'run'}"])).save()
    assert found(again.folder) == {}
    whole = [path for path in ("keypoints", "rounds/000/labels", "stage2") if again.manifest(path)]
    assert len(whole) == (3 if name in ("config.yaml", "number_format.json") or "evaluation" in name else 2)


def test_repair_keeps_what_is_whole_with_its_hash(tmp_path):
    run = write_run(tmp_path)
    change(tmp_path / "run/keypoints/outliers.npz", "flip")
    verify(run.folder, repair=True)
    folder = run.unit("keypoints")
    assert not folder.is_file("outliers.npz")
    assert folder.is_whole("part-00000.parquet")
    change(tmp_path / "run/keypoints/part-00000.parquet", "flip")
    assert found(run.folder) == {"keypoints/part-00000.parquet": DAMAGED}


def test_a_dataset_is_repaired_to_an_unfinished_one(tmp_path):
    for name in ("dataset.json", "train/images/part-00000.parquet", "manifest.json"):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        folder = write_dataset(tmp_path).root
        change(tmp_path / "data" / name, "flip")
        with pytest.raises(DamageError):
            Dataset.open(folder).images("train").read_bytes("part-00000.parquet")
        assert verify(folder.unchecked, repair=True).repaired
        assert not (tmp_path / "data/manifest.json").exists()
        assert json.loads((tmp_path / "data/dataset.json").read_text())["fingerprint"] == "f"
        assert (tmp_path / "data/test/images/part-00000.parquet").exists()
        assert (tmp_path / "data/train/images/part-00000.parquet").exists() == ("train" not in name)


def test_an_older_version_kept_no_hashes(tmp_path):
    run = write_run(tmp_path)
    for path in (tmp_path / "run").rglob("manifest.json"):
        value = json.loads(path.read_text())
        path.write_text(json.dumps({name: held for name, held in value.items() if name not in ("outputs", "sha256")}))
    config = tmp_path / "run/config.yaml"
    config.write_bytes(config.read_bytes().partition(b"\n")[2])
    states = found(run.folder)
    assert set(states.values()) == {UNRECORDED}
    assert "stage2/*" in states
    assert Run.open(str(run.folder)).manifest("stage2")["step"] == "stage2"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("sealed", [True, False])
def test_half_a_configuration_is_refused_whoever_wrote_it(tmp_path, share, sealed):
    run = write_run(tmp_path)
    path = tmp_path / "run/config.yaml"
    content = path.read_bytes() if sealed else path.read_bytes().partition(b"\n")[2]
    # Without its first line a file that ends between two lines of its last section looks whole.
    path.write_bytes(content[: int(share * len(content))].rstrip(b"\n"))
    for act in (lambda: Run.open(str(run.folder)), lambda: Run.start(run.config)):
        with pytest.raises(DamageError, match=r"config.yaml: .*writes it again$"):
            act()


def test_an_edited_configuration_is_accepted_without_its_first_line(tmp_path):
    run = write_run(tmp_path)
    path = tmp_path / "run/config.yaml"
    edited = path.read_text().replace("seed: 0", "seed: 5")
    path.write_text(edited)
    with pytest.raises(DamageError, match="if you edited it, remove its first line"):
        Run.open(str(run.folder))
    path.write_text(edited.partition("\n")[2])
    assert Run.open(str(run.folder)).config.seed == 5
    assert load_config(path, []).seed == 5
    path.write_bytes(seal_text(edited.partition("\n")[2]))
    assert Run.open(str(run.folder)).config.seed == 5


def test_a_lost_configuration_is_written_again(tmp_path):
    run = write_run(tmp_path)
    (tmp_path / "run/config.yaml").unlink()
    with pytest.raises(RunError, match="no run directory"):
        Run.open(str(run.folder))
    again = Run.start(run.config).save()
    assert again.manifest("stage2")
    assert Run.open(str(run.folder)).config == run.config


def test_the_command(tmp_path, capsys):
    run = write_run(tmp_path)
    assert main(["verify", str(run.folder)]) == 0
    assert "9 files" in capsys.readouterr().out
    change(tmp_path / "run/stage2/network.pt", "flip")
    assert main(["verify", str(run.folder), "--json"]) == 4
    figures = json.loads(capsys.readouterr().out)
    assert (figures["faults"], figures["files"]) == (1, 8)
    assert figures["findings"][0]["path"] == "stage2/network.pt"
    assert figures["commands"] == [
        f"kplm verify {run.folder} --repair", f"kplm train {run.folder}/config.yaml run={run.folder}"
    ]  # fmt: skip
    assert main(["verify", str(run.folder), "--repair"]) == 0
    assert "next:\n  kplm train" in capsys.readouterr().out
    assert main(["verify", str(run.folder)]) == 0
    assert main(["verify", str(tmp_path / "nowhere")]) == 4
    assert "neither a run nor a dataset" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"{", bytes(40), b'{"a": "\xff"}'])
@pytest.mark.parametrize("name", ["mlflow.json", "number_format.json", "stage2/claim.json", "stage2/manifest.json"])
def test_json_that_makes_no_sense_is_one_line(tmp_path, name, content):
    from ray_kplm.tracking.record import Record

    run = write_run(tmp_path)
    if "claim" in name:
        (tmp_path / "run/stage2/manifest.json").unlink()
    (tmp_path / "run" / name).write_bytes(content)
    read = {
        "mlflow.json": lambda: Record(run.folder), "number_format.json": lambda: run.resolved,
    }.get(name, lambda: run.step("stage2", "stage2", {}, {}).manifest())  # fmt: skip
    with pytest.raises(DamageError) as caught:
        read()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"null", b"{", b'{"kind": "dataset"}', b'{"kind": "dataset", "splits": 3}'])
@pytest.mark.parametrize("name", ["manifest.json", "dataset.json"])
def test_a_dataset_that_makes_no_sense_is_one_line(tmp_path, name, content):
    write_dataset(tmp_path)
    (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(DamageError) as caught:
        Dataset.open(tmp_path / "data")
    assert "kplm verify" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_flipped_bit_of_a_network_is_silent(tmp_path):
    """Also not in a copy of the detector, which `export` made."""
    from tests.tracking.conftest import SMALL, finish

    run = finish.__wrapped__()(Run.start(load_config(None, [f"run={tmp_path / 'run'}", *SMALL])).save())
    from ray_kplm.detectors.stored import export

    export(run, Folder.at(tmp_path / "copy"))
    for place, network in ((run.folder.path, "stage2/network.pt"), (str(tmp_path / "copy"), "network.pt")):
        path = Path(place) / network
        content = path.read_bytes()
        LandmarkDetector.load(place, device="cpu")
        for number in range(54):
            position = number * len(content) // 54
            path.write_bytes(content[:position] + bytes([content[position] ^ 64]) + content[position + 1 :])
            _published.clear(), _checked.clear()
            with pytest.raises(DamageError, match=r"network\.pt: is damaged"):
                LandmarkDetector.load(place, device="cpu")
        path.write_bytes(content)
        LandmarkDetector.load(place, device="cpu")
