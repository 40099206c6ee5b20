"""The JSON schema and completion: both speak of the same signatures as the check."""

from __future__ import annotations

import copy

import jsonschema
import pytest

from dlx.config import compose
from dlx.config.complete import complete
from dlx.config.groups import GROUPS, options
from dlx.config.schema import json_schema
from dlx.config.yaml import read_yaml

CHOICES = [(group, name) for group in GROUPS for name in options(group)]


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def composed(alone, tmp_path):
    def read(group, name):
        path = tmp_path / "config.yaml"
        path.write_text(compose(alone(group, name)).to_yaml())
        return read_yaml(path)

    return read


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_the_schema_accepts_every_option(group, name, validator, composed):
    assert [error.message for error in validator.iter_errors(composed(group, name))] == []


@pytest.mark.parametrize(
    ("block", "key", "value"),
    [("model", "depht", 3), ("optimizer", "lr", "abc"), ("trainer", "precision", "fp8"), (None, "seeed", 1)],
)
def test_the_schema_refuses_mistakes(block, key, value, validator, composed):
    values = copy.deepcopy(composed("model", "resnet"))
    assert validator.is_valid(values)
    (values[block] if block else values)[key] = value
    assert not validator.is_valid(values)


def test_the_schema_says_defaults_choices_and_what_is_required(validator):
    models = {block["title"]: block for block in validator.schema["properties"]["model"]["anyOf"]}
    assert "relu" in models["MLP"]["properties"]["activation"]["enum"]
    assert models["MLP"]["properties"]["dropout"]["default"] == 0.0
    assert models["MLP"]["description"].startswith("Multi-layer perceptron")
    datasets = {block["title"]: block for block in validator.schema["properties"]["dataset"]["anyOf"]}
    assert "path" in datasets["ImageFolder"]["required"]


@pytest.mark.parametrize(
    ("word", "earlier", "expected"),
    [
        ("mod", [], ["model="]),
        ("opt", [], ["optimizer=", "optim="]),
        ("model=re", [], ["model=resnet"]),
        ("optim=recipe/re", [], ["optim=recipe/recurrent", "optim=recipe/resnet"]),
        ("optim.mo", ["optim=sgd"], ["optim.momentum="]),
        ("optim.mo", ["optim=recipe/resnet"], ["optim.momentum="]),
        ("optim.mo", ["optim=adam"], []),
        ("scheduler.", ["model=resnet"], ["scheduler.final="]),
        ("scheduler.m", ["experiment=resnet_cifar10"], ["scheduler.milestones="]),
        ("model.dep", ["model=resnet"], ["model.depth="]),
        ("+model.dep", ["model=resnet"], ["+model.depth="]),
        ("~model.dep", ["model=resnet"], ["~model.depth"]),
        ("model.activation=si", ["model=mlp"], ["model.activation=sigmoid"]),
        ("optim.nesterov=", ["optim=sgd"], ["optim.nesterov=true", "optim.nesterov=false"]),
        ("reg=[mixup,dr", [], ["reg=[mixup,dropout"]),
        ("reg.", ["reg=[mixup,dropout]"], ["reg.mixup.", "reg.dropout."]),
        ("reg.mixup.", ["reg=[mixup]"], ["reg.mixup.alpha="]),
        ("tracker.wandb.mode=of", ["tracker=wandb"], ["tracker.wandb.mode=offline"]),
        ("nothing.", [], []),
        ("model.", ["model=nothing"], []),
    ],
)
def test_completion(word, earlier, expected):
    assert complete(word, earlier) == expected


def test_completion_knows_own_folders_and_survives_broken_files(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("# Mine.\nmodel: [")
    assert complete("model=mi", [], [tmp_path]) == ["model=mine"]
    assert complete("model.", ["model=mine"], [tmp_path]) == []
