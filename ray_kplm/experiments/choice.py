"""`kplm choose`: the numbers of landmarks and clusters for a dataset, before anything is trained.

<folder>/choice/       keypoints of the sample, and manifest.json with the evidence, as in a run that has `auto`
<folder>/choice.png    the curve
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError
from ray_kplm.locking import lock_folder
from ray_kplm.progress import ProgressCallback
from ray_kplm.report.figures import agreement_over
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.steps.choose import choice_step, choose
from ray_kplm.storage import Folder

PICTURE = "choice.png"


def choose_numbers(
    dataset: str, config: str | None, overrides: Iterable[str], folder: str, progress: ProgressCallback
) -> dict[str, Any]:
    """Choose K and M for a dataset, and draw the evidence.

    Args:
        dataset: The dataset.
        config: A YAML file or the name of a ready configuration; None: the defaults. Its K and M do not count.
        overrides: Changes to it, `key=value`. A value of `method.clusters` is kept.
        folder: Where the evidence is written. A choice of another configuration there is replaced.
        progress: Called as the work goes on.

    Returns:
        The manifest of the choice, see `steps.choose.choose`.

    Raises:
        ConfigError: K is given.
        CollapseError: The images have too few keypoints.
    """
    auto = ["method.landmarks=auto", "method.clusters=auto"]
    loaded = load_config(config, [*auto, *overrides, f"dataset={dataset}", f"run={folder}"])
    if loaded.method.landmarks:
        raise ConfigError(f"method.landmarks = {loaded.method.landmarks}: is what `kplm choose` chooses; leave it out")
    opened, home = Dataset.open(dataset), Folder.at(folder)
    with lock_folder(home) as lock:
        home = lock.folder
        step = choice_step(Run(home, loaded), opened)
        if step.is_current():
            choice = step.manifest() or {}
        else:
            with session(loaded.compute):
                choice = choose(step, opened, loaded, progress)
        home.write_bytes(PICTURE, agreement_over(choice["rows"], choice["landmarks"]))
    return choice
