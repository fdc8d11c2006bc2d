"""Files for clusters, checked against the schemas of the programs that read them."""

from __future__ import annotations

import copy
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ray_kplm.config import load_config
from ray_kplm.redaction import redact

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
CAPABILITIES = section([], add={"type": "array", "items": TEXT}, drop={"type": "array", "items": TEXT})
SECURITY = section(
    [], runAsNonRoot=FLAG, runAsUser=WHOLE, runAsGroup=WHOLE, allowPrivilegeEscalation=FLAG, privileged=FLAG,
    readOnlyRootFilesystem=FLAG, capabilities=CAPABILITIES, seccompProfile=section(["type"], type=TEXT),
)  # fmt: skip
POD_SECURITY = section(
    [], runAsNonRoot=FLAG, runAsUser=WHOLE, runAsGroup=WHOLE, fsGroup=WHOLE, seccompProfile=section(["type"], type=TEXT)
)
CONTAINER = section(
    ["name"], name=TEXT, image=TEXT, securityContext=SECURITY, env={"type": "array"}, envFrom={"type": "array"},
    ports={"type": "array", "items": section(["containerPort"], containerPort=WHOLE, name=TEXT)},
    resources=section([], limits=QUANTITIES, requests=QUANTITIES),
    volumeMounts={"type": "array", "items": section(["name", "mountPath"], name=TEXT, mountPath=TEXT)},
)  # fmt: skip
POD = section(
    [], metadata=MAP,
    spec=section(["containers"], containers={"type": "array", "items": CONTAINER}, volumes={"type": "array"},
                 tolerations={"type": "array"}, nodeSelector=PARAMETERS, securityContext=POD_SECURITY,
                 automountServiceAccountToken=FLAG, restartPolicy={"enum": ["Never", "OnFailure", "Always"]}),
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
        submitterPodTemplate=POD,
        ttlSecondsAfterFinished=WHOLE, activeDeadlineSeconds=WHOLE, submissionMode={"enum": ["K8sJobMode", "HTTPMode"]},
        rayClusterSpec=section(
            ["headGroupSpec"], rayVersion=TEXT, authOptions=section(["mode"], mode={"enum": ["disabled", "token"]}),
            enableInTreeAutoscaling=FLAG, headGroupSpec=HEAD,
            autoscalerOptions=section([], idleTimeoutSeconds=WHOLE, upscalingMode=TEXT, securityContext=SECURITY),
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
    containers = {name: pod["containers"][0] for name, pod in pods(job).items()}
    assert len({container["image"] for container in containers.values()}) == 1
    limits = {name: container["resources"]["limits"].get("nvidia.com/gpu") for name, container in containers.items()}
    assert limits == {"ray-job-submitter": None, "ray-head": None, "ray-worker": "1"}
    assert isinstance(yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"], dict)


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods of a job by the name of their first container."""
    cluster = job["spec"]["rayClusterSpec"]
    templates = [
        job["spec"]["submitterPodTemplate"], cluster["headGroupSpec"]["template"],
        *(group["template"] for group in cluster["workerGroupSpecs"]),
    ]  # fmt: skip
    return {template["spec"]["containers"][0]["name"]: template["spec"] for template in templates}


def test_pods_run_without_root_and_without_privileges():
    """The rules of the Pod Security Standard `restricted`."""
    job = read("jobs/rayjob.yaml")
    assert set(pods(job)) == {"ray-job-submitter", "ray-head", "ray-worker"}
    contexts = [job["spec"]["rayClusterSpec"]["autoscalerOptions"]["securityContext"]]
    for pod in pods(job).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(volume) <= {"name", "emptyDir", "secret", "configMap"} for volume in pod.get("volumes", ()))
        contexts += [container["securityContext"] for container in pod["containers"]]
    for context in contexts:
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_clusters_ask_for_a_token():
    assert read("jobs/rayjob.yaml")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    cluster = read("cluster.yaml")
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for kind in ("head", "worker"):
        (start,) = [line for line in cluster[f"{kind}_start_ray_commands"] if "ray start" in line]
        assert start.startswith("RAY_AUTH_MODE=token ")


def test_ray_reads_the_token_from_where_the_launcher_puts_it(tmp_path):
    """`ray get-auth-token` prints what `~/.ray/auth_token` holds, and makes one only if it is asked to."""
    command = [str(Path(sys.executable).parent / "ray"), "get-auth-token"]
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    missing = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert missing.returncode != 0
    made = subprocess.run([*command, "--generate"], env=environment, capture_output=True, text=True, timeout=300)
    assert (tmp_path / ".ray" / "auth_token").read_text().strip() == made.stdout.strip() != ""


def test_files_for_clusters_hold_no_secret_and_no_plain_http():
    for name in ("cluster.yaml", "jobs/rayjob.yaml", "jobs/runtime_env.yaml", "jobs/Containerfile"):
        text = (ROOT / name).read_text()
        assert redact(text) == text
        assert not [uri for uri in re.findall(r"http://[\w.-]+", text) if uri != "http://127.0.0.1"], name
        assert not re.search(r"(SECRET_ACCESS_KEY|PASSWORD|TOKEN)\s*[=:]\s*[\w+/]{8,}", text), name


@pytest.mark.parametrize("path", ["cluster.yaml", "jobs/rayjob.yaml", "jobs/Containerfile"])
def test_each_file_says_how_an_image_is_pinned_by_its_digest(path):
    comments = [line for line in (ROOT / path).read_text().splitlines() if line.startswith("#")]
    assert any(
        re.search(r"skopeo inspect .*Digest|imagetools inspect .*Digest|--digestfile", line) for line in comments
    )


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


def test_ray_serve_accepts_the_server():
    from ray.serve.schema import ServeDeploySchema

    given = read("jobs/serve.yaml")
    accepted = ServeDeploySchema.model_validate(given).model_dump(mode="json", exclude_unset=True)
    assert unknown_keys(given, accepted) == []
    assert accepted["http_options"]["host"] == "127.0.0.1"
    wrong = {**given, "http_options": {**given["http_options"], "hosts": "0.0.0.0"}}
    accepted = ServeDeploySchema.model_validate(wrong).model_dump(mode="json", exclude_unset=True)
    assert unknown_keys(wrong, accepted) == ["hosts"]


def unknown_keys(given: Any, accepted: Any) -> list[str]:
    """Keys that Ray Serve's schema ignores."""
    if isinstance(given, list):
        return [key for one, other in zip(given, accepted, strict=True) for key in unknown_keys(one, other)]
    if not isinstance(given, dict):
        return []
    below = [key for name in given.keys() & accepted.keys() for key in unknown_keys(given[name], accepted[name])]
    return [*(given.keys() - accepted.keys()), *below]


def test_the_server_is_made_of_the_arguments_of_its_file():
    from ray_kplm.errors import ConfigError

    (application,) = read("jobs/serve.yaml")["applications"]
    module, _, name = application["import_path"].partition(":")
    build = getattr(importlib.import_module(module), name)
    deployment = build(application["args"])._bound_deployment
    assert [deployment.name] == [one["name"] for one in application["deployments"]]
    with pytest.raises(ConfigError, match="batch: no option of a server"):
        build({**application["args"], "batch": 3})
    with pytest.raises(ConfigError, match="detector = None"):
        build({})
