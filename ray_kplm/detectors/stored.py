"""Detectors on storage: those of finished runs, and folders that hold a detector alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ray_kplm.detectors.file_run import file_factory, file_fingerprint
from ray_kplm.detectors.loading import file_form
from ray_kplm.detectors.pretrained import pretrained_predictor, write_pretrained
from ray_kplm.detectors.pretrained_config import is_pretrained, read_description
from ray_kplm.errors import DataError
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.facing import FACING, TEMPLATE, FacingRule
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.methods.trainer import NETWORK, strip_optimiser
from ray_kplm.methods.visibility import VISIBILITY, VISIBILITY_STEP, VisibilityModel
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import LANDMARKS, chosen_name, point_folder, read_point_set
from ray_kplm.redaction import redact
from ray_kplm.run import CONFIG, Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import seal_text
from ray_kplm.storage.integrity import CheckedFolder


def landmark_predictor(run: Run, points: str | None = None) -> LandmarkPredictorFactory:
    """Return the detector of a finished run, of a folder written by `export` or `export_pretrained`, or of a file.

    Args:
        run: The run.
        points: Which points it predicts: the name of a set of `points.stored`, or `LANDMARKS`; by default those of
            an edit, and the landmarks themselves if there is none. Exported detectors have the points that they were
            exported with.

    Raises:
        RunError: The run is not finished.
        DataError: The run has no such points.
        DamageError: A file of the detector is damaged.
    """
    if is_run(run):
        return _of_run(run, chosen_name(run.folder, points))
    if file_form(str(run.folder)):
        factory: LandmarkPredictorFactory = file_factory(run)
    elif is_pretrained(run.folder):
        factory = pretrained_predictor(run)
    else:
        factory = _of_folder(run, _exported(run.folder))
    if points not in (None, LANDMARKS) or (points and factory.points):
        raise DataError(f"--points {points}: {run.folder} is an exported detector, whose points are those it has")
    return factory


def is_run(run: Run) -> bool:
    """Return whether a run is one, and not a detector alone in the place of one."""
    return not (file_form(str(run.folder)) or is_pretrained(run.folder) or is_exported(run.folder))


def _of_run(run: Run, points: str) -> LandmarkPredictorFactory:
    own = point_folder(run.folder, points)
    if points != LANDMARKS and is_exported(own):  # points with a network of their own
        return _of_folder(Run(own, run.config), _exported(own))
    run.finished("stage2")
    return _of_folder(run, run.unit("stage2"), None if points == LANDMARKS else read_point_set(own))


def _of_folder(run: Run, folder: CheckedFolder, points: PointSet | None = None) -> LandmarkPredictorFactory:
    channels, flip = Channels.read(folder), run.config.stage2.flip_at_test
    points = points or read_point_set(folder)
    return LandmarkPredictorFactory(
        run.config, folder, channels.flip_map, flip, facing_rule(run), visibility_model(run), points
    )


def visibility_model(run: Run) -> VisibilityModel | None:
    """Return what gives the landmarks of a detector their probabilities; None if it was made without.

    Raises:
        DamageError: The model is damaged.
    """
    return VisibilityModel.read(_exported(run.folder) if is_exported(run.folder) else run.unit(VISIBILITY_STEP))


def facing_rule(run: Run) -> FacingRule | None:
    """Return the rule that gives the facing of any image; None if mirror images of the run's category are no `facing`.

    Raises:
        DamageError: The rule is damaged or lost.
    """
    exported = is_exported(run.folder)
    folder = _exported(run.folder) / FACING if exported else run.unit(FACING)
    found = FacingRule.of_detector(folder, run.config)
    manifest = None if exported else run.manifest(FACING)
    if found is None and manifest is not None and manifest.get("mirror") == "facing":
        raise folder.damage(TEMPLATE, "is lost, and mirror images face the other way")
    return found


def detector_fingerprint(run: Run, points: str | None = None) -> str:
    """Return what tells the detector of a finished run, or of a folder that holds a detector, from others.

    Args:
        run: The run.
        points: As of `landmark_predictor`.

    Raises:
        RunError: The run is not finished.
        DamageError: The model of its probabilities is damaged.
    """
    if file_form(str(run.folder)):
        return file_fingerprint(run)
    if is_pretrained(run.folder):
        return str(read_description(run.folder)["weights"]["sha256"])[:16]
    name = LANDMARKS if is_exported(run.folder) else chosen_name(run.folder, points)
    own = run.folder if name == LANDMARKS else point_folder(run.folder, name)
    detector = Run(own, run.config) if is_exported(own) else run
    if is_exported(own):
        network = hashlib.sha256(own.read_bytes(NETWORK)).hexdigest()[:16]
    else:
        network = str(run.finished("stage2")["fingerprint"])
    visibility, made = visibility_model(detector), read_point_set(own)
    further = [one.to_dict() for one in (visibility, made) if one is not None]
    return hashlib.sha256(json.dumps([network, *further]).encode()).hexdigest()[:16] if further else network


def is_exported(folder: Folder) -> bool:
    """Return whether a folder holds a detector alone, written by `export`, and not a run."""
    return folder.is_file(CHANNELS)


def _exported(folder: Folder) -> CheckedFolder:
    return CheckedFolder.of(folder, "export the detector of the run again")


def export(run: Run, folder: Folder) -> None:
    """Copy the files that the detector needs to a folder: `network.pt` (only the weights), `channels.json`, `config.yaml`.

    `LandmarkDetector.load` reads the folder, and checks the files by its `manifest.json`.

    Raises:
        RunError: The run is not finished.
        DamageError: A file of the detector is damaged.
    """
    fingerprint = run.finished("stage2")["fingerprint"]
    source = run.unit("stage2")
    with source.parsing(NETWORK):
        state = strip_optimiser(source.read_bytes(NETWORK))
    write_detector(run, folder, state, Channels.read(source), visibility_model(run), fingerprint)


def write_detector(
    run: Run, folder: Folder, state: bytes, channels: Channels, visibility: VisibilityModel | None, fingerprint: str
) -> None:
    """Write a detector that was trained for a run's category to a folder, in the form of `export`.

    Args:
        run: Gives the configuration, and the rule of facing.
        folder: Of the detector.
        state: The stored state of its network (`methods.trainer`), without that of the optimiser.
        channels: Of its network.
        visibility: Gives its points their probabilities; None: they have none.
        fingerprint: Tells the network from others.

    Raises:
        DamageError: A file of the run is damaged.
    """
    target = _exported(folder)
    target.write_bytes(NETWORK, state)
    target.write_json(CHANNELS, channels.to_dict())
    target.write_bytes(CONFIG, seal_text(redact(run.folder.read_bytes(CONFIG).decode())))
    if visibility is not None:
        target.write_json(VISIBILITY, visibility.to_dict())
    rule = facing_rule(run)
    if rule is not None:
        rule.write(target / FACING)
    target.publish({"kind": "detector", "fingerprint": fingerprint}, names=())


def export_pretrained(run: Run, folder: Folder, **facts: Any) -> dict[str, Any]:
    """Write the detector of a finished run, or of a folder written by `export`, as one to share: see `pretrained_config`.

    Args:
        run: A finished run, or an exported detector.
        folder: Where `model.safetensors` and `config.json` are written.
        facts: What else `config.json` says.

    Returns:
        The content of `config.json`.

    Raises:
        RunError: The run is not finished.
        ConfigError: The package safetensors is missing, or the detector depends on a file of this machine.
        DamageError: A file of the detector is damaged.
    """
    factory = landmark_predictor(run)
    channels = Channels.read(_exported(run.folder) if is_exported(run.folder) else run.unit("stage2"))
    return write_pretrained(factory, channels, folder, {"fingerprint": detector_fingerprint(run), **facts})
