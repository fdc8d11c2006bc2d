"""Detectors on storage: those of finished runs, and folders that hold a detector alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ray_kplm.detectors.detector_files import DetectorFiles, exported_folder
from ray_kplm.detectors.detector_files import is_exported as is_exported
from ray_kplm.detectors.file_run import file_factory, file_fingerprint
from ray_kplm.detectors.loading import file_form
from ray_kplm.detectors.pretrained import pretrained_predictor, write_pretrained
from ray_kplm.detectors.pretrained_config import is_pretrained, pretrained_fingerprint, read_description
from ray_kplm.errors import DataError
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.facing import FACING, FacingRule
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.methods.trainer import NETWORK, strip_optimiser
from ray_kplm.methods.visibility import VISIBILITY, VisibilityModel
from ray_kplm.points.layout import Skeleton
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import LANDMARKS, POINTS_FILE, write_point_set
from ray_kplm.redaction import redact
from ray_kplm.run import CONFIG, Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import seal_text


def landmark_predictor(run: Run, points: str | None = None) -> LandmarkPredictorFactory:
    """Return the detector of a finished run, of a folder written by `export` or `export_pretrained`, or of a file.

    Args:
        run: The run.
        points: Which points it predicts: the name of a set of `points.stored`, or `LANDMARKS`; by default those of
            an edit, and the landmarks themselves if there is none. Exported detectors have the points that they were
            exported with.

    Raises:
        RunError: The run is not finished.
        DataError: There are no such points.
        DamageError: A file of the detector is damaged.
    """
    if is_run(run):
        return DetectorFiles.of(run, points).factory()
    if file_form(str(run.folder)):
        factory: LandmarkPredictorFactory = file_factory(run)
    elif is_pretrained(run.folder):
        factory = pretrained_predictor(run)
    else:
        factory = DetectorFiles.of(run).factory()
    if points not in (None, LANDMARKS) or (points and (factory.points is not None or factory.layout.is_named)):
        raise DataError(f"--points {points}: {run.folder} is an exported detector, whose points are those it has")
    return factory


def is_run(run: Run) -> bool:
    """Return whether a run is one, and not a detector alone in the place of one."""
    return not (file_form(str(run.folder)) or is_pretrained(run.folder) or is_exported(run.folder))


def visibility_model(run: Run) -> VisibilityModel | None:
    """Return what gives the landmarks of a run, or of an exported detector, their probabilities; None if it was made without.

    Raises:
        DamageError: The model is damaged.
    """
    return DetectorFiles.of(run, LANDMARKS).visibility_model()


def facing_rule(run: Run) -> FacingRule | None:
    """Return the rule that gives the facing of any image; None if mirror images of the run's category are no `facing`.

    Raises:
        DamageError: The rule is damaged or lost.
    """
    return DetectorFiles.of(run, LANDMARKS).facing_rule()


def detector_fingerprint(run: Run, points: str | None = None) -> str:
    """Return what tells the detector of a finished run, or of a folder that holds a detector, from others.

    Args:
        run: The run.
        points: As of `landmark_predictor`.

    Raises:
        RunError: The run is not finished.
        DataError: There are no such points.
        DamageError: The model of its probabilities, or the set of points, is damaged.
    """
    if file_form(str(run.folder)):
        return file_fingerprint(run)
    if is_pretrained(run.folder):
        return pretrained_fingerprint(read_description(run.folder))
    return DetectorFiles.of(run, points).fingerprint()


def export(run: Run, folder: Folder, points: str | None = None) -> None:
    """Copy the files that the detector needs to a folder: `network.pt` (only the weights), `channels.json`, `config.yaml`.

    `LandmarkDetector.load` reads the folder, and checks the files by its `manifest.json`.

    Args:
        run: A finished run.
        folder: Where to write.
        points: Which points the detector there predicts: see `landmark_predictor`.

    Raises:
        RunError: The run is not finished.
        DataError: The run has no such points.
        DamageError: A file of the detector is damaged.
    """
    files = DetectorFiles.of(run, points)
    fingerprint, source = files.network_fingerprint(), files.network
    folder.delete_file(POINTS_FILE)  # of an earlier detector in the folder
    with source.parsing(NETWORK):
        state = strip_optimiser(source.read_bytes(NETWORK))
    write_detector(run, folder, state, files.channels(), files.visibility_model(), fingerprint, files.point_set())


def write_detector(
    run: Run,
    folder: Folder,
    state: bytes,
    channels: Channels,
    visibility: VisibilityModel | None,
    fingerprint: str,
    points: PointSet | None = None,
) -> None:
    """Write a detector that was trained for a run's category to a folder, in the form of `export`.

    Args:
        run: Gives the configuration, and the rule of facing.
        folder: Of the detector.
        state: The stored state of its network (`methods.trainer`), without that of the optimiser.
        channels: Of its network.
        visibility: Gives its landmarks their probabilities; None: they have none.
        fingerprint: Tells the network from others.
        points: What its landmarks are made into; None: they stay, or are made into a set that the folder holds.

    Raises:
        DamageError: A file of the run is damaged.
    """
    target = exported_folder(folder)
    target.write_bytes(NETWORK, state)
    target.write_json(CHANNELS, channels.to_dict())
    target.write_bytes(CONFIG, seal_text(redact(run.folder.read_bytes(CONFIG).decode())))
    if visibility is not None:
        target.write_json(VISIBILITY, visibility.to_dict())
    rule = facing_rule(run)
    if rule is not None:
        rule.write(target / FACING)
    if points is not None:
        write_point_set(target, points)
    target.publish({"kind": "detector", "fingerprint": fingerprint}, names=())


def export_pretrained(
    run: Run, folder: Folder, points: str | None = None, skeleton: Skeleton = (), **facts: Any
) -> dict[str, Any]:
    """Write the detector of a finished run, or of a folder written by `export`, as one to share: see `pretrained_config`.

    Args:
        run: A finished run, or an exported detector.
        folder: Where `model.safetensors` and `config.json` are written.
        points: Which points the detector there predicts: see `landmark_predictor`.
        skeleton: Edges between the points, if these have none of their own.
        facts: What else `config.json` says.

    Returns:
        The content of `config.json`.

    Raises:
        RunError: The run is not finished.
        ConfigError: The package safetensors is missing, or the detector depends on a file of this machine.
        DataError: There are no such points.
        DamageError: A file of the detector is damaged.
    """
    factory = replace(landmark_predictor(run, points), skeleton=skeleton)
    files = DetectorFiles.of(run, points)
    return write_pretrained(factory, files.channels(), folder, {"fingerprint": files.fingerprint(), **facts})
