"""Files for clusters, checked against the schemas of the programs that read them."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ray_kplm.config import load_config

ROOT = Path(__file__).parents[1]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
RAY = next(line.removeprefix("ray==") for line in CONSTRAINTS.splitlines() if line.startswith("ray=="))


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_cluster_launcher_accepts_its_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read("cluster.yaml"))
    validate_config(config)
    with pytest.raises(jsonschema.ValidationError):
        validate_config({**config, "head_nodes_type": "head"})
    types = config["available_node_types"]
    head, workers = types[config["head_node_type"]], [types[n] for n in types if n != config["head_node_type"]]
    assert "GPU" not in head["resources"]
    for worker in workers:
        assert worker["resources"]["GPU"] >= 1
        assert (worker["min_workers"], worker["max_workers"]) == (0, config["max_workers"])
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def section(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


TEXT, WHOLE, FLAG, MAP = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}, {"type": "object"}
QUANTITIES = {"type": "object", "additionalProperties": {"anyOf": [{"type": "integer"}, TEXT]}}
PARAMETERS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = section(
    ["name"], name=TEXT, image=TEXT, env={"type": "array"}, envFrom={"type": "array"},
    ports={"type": "array", "items": section(["containerPort"], containerPort=WHOLE, name=TEXT)},
    resources=section([], limits=QUANTITIES, requests=QUANTITIES),
    volumeMounts={"type": "array", "items": section(["name", "mountPath"], name=TEXT, mountPath=TEXT)},
)  # fmt: skip
POD = section(
    [], metadata=MAP,
    spec=section(["containers"], containers={"type": "array", "items": CONTAINER}, volumes={"type": "array"},
                 tolerations={"type": "array"}, nodeSelector=PARAMETERS),
)  # fmt: skip
HEAD = section(["template"], rayStartParams=PARAMETERS, template=POD, serviceType=TEXT, labels=PARAMETERS)
WORKERS = section(
    ["groupName", "maxReplicas", "minReplicas", "template"], groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE,
    maxReplicas=WHOLE, idleTimeoutSeconds=WHOLE, rayStartParams=PARAMETERS, template=POD,
)  # fmt: skip
RAY_JOB = section(
    ["apiVersion", "kind", "metadata", "spec"], apiVersion={"const": "ray.io/v1"}, kind={"const": "RayJob"}, metadata=MAP,
    spec=section(
        [], entrypoint=TEXT, runtimeEnvYAML=TEXT, backoffLimit=WHOLE, shutdownAfterJobFinishes=FLAG, suspend=FLAG,
        ttlSecondsAfterFinished=WHOLE, activeDeadlineSeconds=WHOLE, submissionMode={"enum": ["K8sJobMode", "HTTPMode"]},
        rayClusterSpec=section(
            ["headGroupSpec"], rayVersion=TEXT, enableInTreeAutoscaling=FLAG, headGroupSpec=HEAD,
            autoscalerOptions=section([], idleTimeoutSeconds=WHOLE, upscalingMode=TEXT),
            workerGroupSpecs={"type": "array", "items": WORKERS},
        ),
    ),
)  # fmt: skip
"""The part that is used here of KubeRay's CustomResourceDefinition of a RayJob, version v1: names, types, what is required."""


def test_kuberay_accepts_the_job():
    job = read("jobs/rayjob.yaml")
    jsonschema.validate(job, RAY_JOB)
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 4
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY
    (workers,) = cluster["workerGroupSpecs"]
    pods = [pod["template"]["spec"]["containers"][0] for pod in (cluster["headGroupSpec"], workers)]
    assert len({pod["image"] for pod in pods}) == 1
    assert [pod["resources"]["limits"].get("nvidia.com/gpu") for pod in pods] == [None, "1"]
    assert isinstance(yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"], dict)


def test_the_job_runs_a_script_and_a_configuration_that_exist():
    job = read("jobs/rayjob.yaml")
    python, script, config, *overrides = shlex.split(job["spec"]["entrypoint"])
    assert python == "python"
    inside = "/home/ray/ray_kplm/"  # where jobs/Containerfile puts the project
    assert f"WORKDIR {inside.rstrip('/')}" in (ROOT / "jobs/Containerfile").read_text()
    assert (ROOT / script.removeprefix(inside)).is_file()
    loaded = load_config(ROOT / config.removeprefix(inside), overrides)
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert loaded.compute.worker_range.max == workers["maxReplicas"]


def test_ray_accepts_the_runtime_environment():
    from ray.runtime_env import RuntimeEnv

    given = read("jobs/runtime_env.yaml")
    RuntimeEnv(**given)
    files = [line for package in given["pip"]["packages"] for line in re.findall(r"WORKING_DIR}/([\w./-]+)", package)]
    assert files == ["constraints.txt"]
    with pytest.raises(ValueError, match="can only have these fields"):
        RuntimeEnv(**{**given, "pip": {"package": given["pip"]["packages"]}})


@pytest.mark.parametrize("path", ["cluster.yaml", "jobs/Containerfile"])
def test_images_have_the_ray_that_the_tests_passed_with(path):
    versions = re.findall(r"rayproject/ray:([\d.]+)-", (ROOT / path).read_text())
    assert versions
    assert set(versions) == {RAY}


def test_the_image_is_made_of_files_that_exist():
    for line in (ROOT / "jobs/Containerfile").read_text().splitlines():
        if line.startswith("COPY"):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources), line


@pytest.mark.parametrize("script", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_a_script_calls_the_command_of_its_name(script):
    assert f'main(["{script.stem}", *sys.argv[1:]])' in script.read_text()
