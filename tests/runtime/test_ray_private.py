"""Private names of Ray, as `ray_kplm.runtime.ray_private` uses them. Each failure names what a version of Ray changed."""

import inspect
import tomllib
from pathlib import Path

import pytest
import ray
from packaging.requirements import Requirement
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from ray_kplm.runtime import ray_private
from ray_kplm.runtime.ray_private import HOMES

ROOT = Path(__file__).parents[2]
CALLS = [
    ("memory_summary", "", ("address",), {"stats_only": True}),
    ("get_ray_address_file", "", (None,), {}),
    ("Cluster", "", (), {"initialize_head": True, "head_node_args": {}}),
    ("Cluster", "add_node", (None,), {"num_cpus": 1}),
    ("Cluster", "wait_for_nodes", (None,), {}),
    ("Cluster", "remove_node", (None, None), {"allow_graceful": False}),
    ("Cluster", "shutdown", (None,), {}),
    ("PlacementGroupTableData", "FromString", (b"",), {}),
    ("ExecutionCallback", "on_execution_step", (None, None), {}),
    ("ControllerCallback", "on_controller_start_worker_group", (None,), {"scaling_config": None, "num_workers": 1}),
]
"""A name, the method of it that the package calls or overrides ("": the name itself), and arguments, self first."""
FIELDS = ("placement_group_id", "creator_actor_id", "creator_job_id", "creator_actor_dead", "state", "REMOVED")
"""Of PlacementGroupTableData."""


def private(name: str):
    """Import a name, or fail with the name, its module and the version of Ray."""
    try:
        return getattr(ray_private, name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"Ray {ray.__version__} has no {HOMES[name]}.{name}: {error}")


def assert_has(owner: object, attributes, name: str) -> None:
    missing = [attribute for attribute in attributes if not hasattr(owner, attribute)]
    assert not missing, f"Ray {ray.__version__}: {name} has no {', '.join(missing)}"


def assert_takes(function, arguments, options, name: str) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # compiled: it shows no signature
        return
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        pytest.fail(f"Ray {ray.__version__}: {name}{signature} {error}")


@pytest.mark.parametrize("name", HOMES)
def test_a_private_name_is_where_it_was(name):
    private(name)


@pytest.mark.parametrize(
    ("name", "method", "arguments", "options"), CALLS, ids=[f"{name}.{method}".strip(".") for name, method, *_ in CALLS]
)
def test_a_private_function_takes_the_arguments_that_are_passed(name, method, arguments, options):
    owner = private(name)
    if method:
        assert_has(owner, [method], f"{HOMES[name]}.{name}")
    function = getattr(owner, method) if method else owner
    assert_takes(function, arguments, options, ".".join(filter(None, (HOMES[name], name, method))))


def test_a_placement_group_record_has_the_fields_that_are_read():
    assert_has(private("PlacementGroupTableData")(), FIELDS, HOMES["PlacementGroupTableData"])


def test_a_cluster_without_nodes_has_the_attributes_that_are_read():
    assert_has(private("Cluster")(shutdown_at_exit=False), ["address", "head_node"], f"{HOMES['Cluster']}.Cluster")


def test_a_node_has_the_attributes_that_are_read(ray_cluster):
    node = ray._private.worker.global_worker.node
    assert_has(node, ["_ray_params", "all_processes"], "ray._private.node.Node")
    assert_has(node._ray_params, ["num_cpus"], "Node._ray_params")
    assert node.all_processes["raylet"][0].process.pid > 0, f"Ray {ray.__version__}: Node.all_processes changed"


def test_the_global_state_lists_placement_groups(ray_cluster):
    assert_has(private("state"), ["_connect_and_get_accessor"], HOMES["state"])
    accessor = private("state")._connect_and_get_accessor()
    assert_has(accessor, ["get_placement_group_table"], "GlobalStateAccessor")
    records = accessor.get_placement_group_table()
    assert all(isinstance(record, bytes) for record in records), f"Ray {ray.__version__}: records are not bytes"


def test_the_memory_summary_has_the_line_that_is_read(ray_cluster):
    text = private("memory_summary")(ray.get_runtime_context().gcs_address, stats_only=True)
    assert "Plasma memory usage " in text, f"Ray {ray.__version__}: memory_summary prints {text!r}"


def test_a_trainer_lists_the_callback_that_is_left_out(ray_cluster):
    trainer = TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))
    assert_has(trainer, ["_create_default_callbacks"], "TorchTrainer")
    callbacks = trainer._create_default_callbacks()
    cleaner = private("PlacementGroupCleanerCallback")
    found = [type(callback).__name__ for callback in callbacks]
    assert any(isinstance(callback, cleaner) for callback in callbacks), f"Ray {ray.__version__}: {found}"


def test_one_minor_version_of_ray_is_admitted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = [r for extra in ("train", "serve") for r in map(Requirement, extras[extra]) if r.name == "ray"]
    assert [str(requirement.specifier) for requirement in found] == ["<2.61,>=2.60"] * 2
    assert found[0].specifier.contains(ray.__version__), f"these tests run with Ray {ray.__version__}"
