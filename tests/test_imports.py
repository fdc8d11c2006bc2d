"""The rooms depend on each other in one direction only, and Ray and MLflow stay in theirs."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ray_kplm"

LEVELS = [
    {"cli", "__init__"},
    {"experiments", "bench", "view"},
    {"pipeline"},
    {"analysis"},
    {"inference"},
    {"steps"},
    {"runtime"},
    {"serving"},
    {"landmark_detector", "detectors", "tracking", "report"},
    {"methods", "keypoints", "dense_features", "points"},
    {"network", "correspondence", "evaluation", "datasets", "labels", "screening"},
    {
        "imaging",
        "run",
        "locking",
        "progress",
        "video",
        "number_format",
        "parts",
        "config_reference",
        "verify",
    },
    {
        "schemas",
        "config",
        "config_names",
        "config_parsing",
        "config_paths",
        "config_rules",
        "config_schema",
        "ready_configs",
        "errors",
        "extras",
        "ranges",
        "redaction",
        "job_copy",
        "notes",
        "storage",
    },
]
"""From the top down: a module imports from its own level or from lower ones."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """`steps` for runtime/train_workers.py, `config` for config.py."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(name: str) -> int:
    return next(i for i, rooms in enumerate(LEVELS) if name in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    own = level(room(path))
    for name in imported(path):
        if name.startswith("ray_kplm."):
            target = name.split(".")[1]
            assert level(target) >= own, f"{path.name} ({room(path)}) imports {name} from above"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ray_is_in_runtime_and_mlflow_in_tracking(path):
    for name in imported(path):
        package = name.split(".")[0]
        if package == "ray":
            assert room(path) == "runtime"
        if package == "mlflow":
            assert room(path) == "tracking"


def test_every_room_has_a_level():
    assert {room(path) for path in MODULES} == set().union(*LEVELS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_modules_of_ray_are_in_one_file(path):
    for name in imported(path):
        private = name.startswith("ray.") and any(piece.startswith("_") for piece in name.split("."))
        assert not private, name
        assert not name.startswith(("ray.cluster_utils", "ray.core.generated")), name
