"""The JSON schema of the configuration takes what the loader takes, and refuses what it refuses."""

import dataclasses
import json
import typing

import jsonschema
import pytest
import yaml

from ray_kplm import ready_configs
from ray_kplm.cli.main import main
from ray_kplm.config import Config, from_dict
from ray_kplm.config_schema import config_schema, field_docs
from ray_kplm.errors import ConfigError

SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def leaves(kind=Config, path=()):
    """Path and type of every value."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, (*path, name))
        else:
            yield (*path, name), hint


LEAVES = list(leaves())


def schema_of(path):
    found = SCHEMA
    for name in path:
        found = found["properties"][name]
    return found


def tree_of(path, value):
    for name in reversed(path):
        value = {name: value}
    return value


def test_the_command_prints_a_valid_schema(capsys):
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


@pytest.mark.parametrize("name", ready_configs.names())
def test_ready_configurations_are_valid(name):
    VALIDATOR.validate(yaml.safe_load(ready_configs.path_of(name).read_text()))


@pytest.mark.parametrize(("path", "hint"), LEAVES, ids=[".".join(path) for path, _ in LEAVES])
def test_every_field_has_its_default_and_docstring_and_refuses_another_type(path, hint):
    schema = schema_of(path)
    config = Config().to_dict()
    for name in path:
        config = config[name]
    assert schema["default"] == config
    assert len(schema["description"]) > 5
    assert VALIDATOR.is_valid(tree_of(path, config))
    assert not VALIDATOR.is_valid(tree_of(path, {"no": "such"}))


ACCEPTED = [
    "stage1: {learning_rate: 1e-4}",  # a string in YAML 1.1
    "stage1: {learning_rate: 1}",
    "stage1: {decay_at: [0.1, 1e-1, 1]}",
    "augment: {scale: [0.5, 2]}",
    "compute: {workers: 2}",
    "compute: {workers: {min: 1, max: 4}}",
    "compute: {channels_last: yes}",
    "run: 7",
    "method: {landmarks: 30.0, clusters: 100}",
    "method: {landmarks: auto, clusters: auto}",
    "method: {landmarks: 0, clusters: 0}",  # as a run with auto is stored
]
REFUSED = [
    "stage1: {learning_rat: 1e-4}",
    "stage1: {learning_rate: fast}",
    "stage1: {decay_at: 0.1}",
    "augment: {scale: [0.5]}",
    "augment: {scale: [0.5, 2, 3]}",
    "compute: {workers: {most: 4}}",
    "compute: {workers: many}",
    "compute: {channels_last: 1}",
    "method: {kind: tempalte}",
    "method: {flip: 1}",
    "method: {landmarks: 9.5}",
    "method: 3",
    "method:",
    "stage3: {}",
    "stage1: {decay_at: [0.5, 1.5]}",
    "stage1: {learning_rate: 0}",
    "keypoints: {nms: 1}",
    "method: {clusters: 40000}",
    "method: {landmarks: 1}",
    "augment: {scale: [0, 1]}",
    "compute: {workers: 0}",
    "compute: {workers: {min: 0, max: 2}}",
    "seed: -1",
    "seed: 12345678901234567890",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_the_schema_accepts_what_the_loader_accepts(text):
    tree = yaml.safe_load(text)
    assert from_dict(tree)
    VALIDATOR.validate(tree)


@pytest.mark.parametrize("text", REFUSED)
def test_the_schema_refuses_what_the_loader_refuses(text):
    tree = yaml.safe_load(text)
    with pytest.raises(ConfigError):
        from_dict(tree)
    assert not VALIDATOR.is_valid(tree)


def test_docstrings_of_fields_are_joined_to_one_line():
    assert field_docs(Config)["seed"] == "Seed of every random choice."
    assert all("\n" not in text for text in field_docs(Config).values())
