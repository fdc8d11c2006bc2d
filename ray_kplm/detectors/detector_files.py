"""Where a detector's files are: in the steps of a run, in one of its sets of points, or in a folder that holds it alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ray_kplm.config import Config
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.facing import FACING, TEMPLATE, FacingRule
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.methods.visibility import VISIBILITY_STEP, VisibilityModel
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import LANDMARKS, chosen_name, point_folder, read_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import CheckedFolder


def is_exported(folder: Folder) -> bool:
    """Return whether a folder holds a detector alone, written by `stored.export`, and not a run."""
    return folder.is_file(CHANNELS)


def exported_folder(folder: Folder) -> CheckedFolder:
    """Return a folder that holds a detector alone, whose files are checked when they are read."""
    return CheckedFolder.of(folder, "export the detector of the run again")


@dataclass(frozen=True, eq=False)
class DetectorFiles:
    """The places of a detector's files, and what is read from them. Each method raises DamageError for a damaged file.

    Attributes:
        config: Of the run.
        network: Folder of `NETWORK` and `CHANNELS`.
        visibility: Folder of the `VisibilityModel`, if there is one.
        facing: Folder of the `FacingRule`, if there is one.
        points: Folder of the `PointSet`, if there is one; None: the landmarks themselves are wanted.
        run: The run whose steps these are; None for a folder that holds a detector alone.
    """

    config: Config
    network: CheckedFolder
    visibility: CheckedFolder
    facing: CheckedFolder
    points: Folder | None
    run: Run | None = None

    @classmethod
    def of(cls, run: Run, points: str | None = None) -> DetectorFiles:
        """Return the files of a run's detector, or of an exported one in the place of a run.

        Args:
            run: The run; it need not be finished.
            points: Of a run: which points are wanted, see `points.stored.chosen_name`.

        Raises:
            DataError: The run has no such points.
        """
        if is_exported(run.folder):
            return cls._alone(run.folder, run.config)
        name = chosen_name(run.folder, points)
        own = None if name == LANDMARKS else point_folder(run.folder, name)
        if own is not None and is_exported(own):  # points with a network of their own
            return cls._alone(own, run.config)
        return cls(run.config, run.unit("stage2"), run.unit(VISIBILITY_STEP), run.unit(FACING), own, run)

    @classmethod
    def _alone(cls, folder: Folder, config: Config) -> DetectorFiles:
        place = exported_folder(folder)
        return cls(config, place, place, place / FACING, place)

    def factory(self) -> LandmarkPredictorFactory:
        """Return what builds the predictor. Raises RunError if the run is not finished."""
        self._check_finished()
        return LandmarkPredictorFactory(
            self.config, self.network, self.channels().flip_map, self.config.stage2.flip_at_test, self.facing_rule(),
            self.visibility_model(), self.point_set(),
        )  # fmt: skip

    def channels(self) -> Channels:
        """Return the channels of the network."""
        return Channels.read(self.network)

    def point_set(self) -> PointSet | None:
        """Return the points that the landmarks are made into; None for the landmarks themselves."""
        return None if self.points is None else read_point_set(self.points)

    def visibility_model(self) -> VisibilityModel | None:
        """Return what gives the landmarks their probabilities; None if the detector was made without."""
        return VisibilityModel.read(self.visibility)

    def facing_rule(self) -> FacingRule | None:
        """Return the rule that gives the facing of any image; None if mirror images of the category are no `facing`."""
        found = FacingRule.of_detector(self.facing, self.config)
        manifest = None if self.run is None else self.run.manifest(FACING)
        if found is None and manifest is not None and manifest.get("mirror") == "facing":
            raise self.facing.damage(TEMPLATE, "is lost, and mirror images face the other way")
        return found

    def network_fingerprint(self) -> str:
        """Return what tells the network from others. Raises RunError if the run is not finished."""
        if self.run is not None:
            return str(self.run.finished("stage2")["fingerprint"])
        return hashlib.sha256(self.network.read_bytes(NETWORK)).hexdigest()[:16]

    def fingerprint(self) -> str:
        """Return what tells the detector from others. Raises RunError if the run is not finished."""
        network = self.network_fingerprint()
        further = [one.to_dict() for one in (self.visibility_model(), self.point_set()) if one is not None]
        return hashlib.sha256(json.dumps([network, *further]).encode()).hexdigest()[:16] if further else network

    def _check_finished(self) -> None:
        if self.run is not None:
            self.run.finished("stage2")
