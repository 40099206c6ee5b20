"""What looks like a key is told to nobody; config.yaml alone is exact."""

import json
from pathlib import Path

import numpy as np
import pytest

from dlx.runs.catalog import Notes, write_notes
from dlx.runs.mask import mask, masked, masked_command

KEYS = {
    "OpenAI": "sk-" + "proj-a1b2c3d4e5f6",
    "GitHub": "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "GitHub, fine-grained": "github_pat_" + "11ABCDEFG0abcdefghijkl",
    "Hugging Face": "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi",
    "Amazon": "AKIA" + "IOSFODNN7EXAMPLE",
    "Slack": "xoxb-" + "123456789012-abcdefABCDEF",
    "Slack, of a person": "xoxp-" + "123456789012-abcdefABCDEF",
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_services_are_found_wherever_they_stand(name):
    key = KEYS[name]
    for text in (key, f"key={key}", f"see {key}, and rotate it", f"https://h/?t={key}&x=1", f'["{key}"]', f"\n{key}\n"):
        assert key not in mask(text), text
        assert "***" in mask(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://***@host/db"),
        ("mysql me:hunter2@host", "mysql me:***@host"),
        ("password=hunter2 a=1", "password=*** a=1"),
        ("--wandb-api-key=hunter2", "--wandb-api-key=***"),
        ("data.access_token: hunter2", "data.access_token: ***"),
    ],
)
def test_logins_and_what_is_named_a_secret(text, shown):
    assert mask(text) == shown
    assert mask(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "model=resnet", "tokenizer=bpe", "dataset.tokens=5", "num_tokens: 5", "sk-learn-and-torch", "the task-force",
        "12:30", "a ratio of 3:2", "https://host:8080/path", "mail me@host.org", "hf_transformers", "s3://bucket/a:b",
        "optim.betas=[0.9, 0.999]", "AKIAS", "2026-11-01 10:00:00", "(k, v)", "",
    ],
)  # fmt: skip
def test_words_are_no_secrets(text):
    assert mask(text) == text


def test_data_and_commands():
    key = KEYS["OpenAI"]
    assert masked({"a": {"api_key": "x", "steps": 3}, "b": [key, 1, None], "token": 5}) == {
        "a": {"api_key": "***", "steps": 3}, "b": ["***", 1, None], "token": 5,
    }  # fmt: skip
    assert masked_command(["dlx", "--token", "abc", "--root", "x", key]) == [
        "dlx",
        "--token",
        "***",
        "--root",
        "x",
        "***",
    ]


@pytest.fixture
def canary(dlx_call, only_run, tiny):
    """A run whose command, configuration, notes and tags have a key, and the key."""
    key = KEYS["GitHub"]
    words = (f"tracker.wandb.notes=by {key}", f"tracker.wandb.tags=[{key}]", "tracker.wandb.mode=offline")
    assert dlx_call("train", *tiny, "tracker=wandb", *words).code == 0
    run = only_run()
    write_notes(run, Notes((key,), f"made with {key}"))
    return run, key


def test_a_key_is_in_config_yaml_and_nowhere_else(canary, dlx_call, monkeypatch):
    run, key = canary
    assert key in (run / "config.yaml").read_text()
    assert key not in (run / "environment.json").read_text()
    assert "***" in (run / "environment.json").read_text()
    assert dlx_call("report", str(run), "--out", "report.html").code == 0
    assert key not in Path("report.html").read_text()
    assert "made with ***" in Path("report.html").read_text()
    assert dlx_call("compare", str(run), "--html", "compare.html").code == 0
    assert key not in Path("compare.html").read_text()
    found = [path for path in (run / "wandb").rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert found == []
    assert dlx_call("train", "--from", str(run), "name=again").code == 0
    (again,) = Path("outputs/again").iterdir()
    assert key in (again / "config.yaml").read_text()  # it reproduces the run


def test_tables_of_a_comparison_are_masked(dlx_call, tiny):
    key = KEYS["GitHub"]
    for name in (f"mine-{key}", "plain"):
        np.save(f"{name}.npy", np.ones(1797))
        assert dlx_call("train", *tiny, f"data.weights={name}.npy", "name=both").code == 0
    for option in ("--csv", "--md", "--latex"):
        table = dlx_call("compare", *map(str, Path("outputs/both").iterdir()), option, "-").out.replace("\\", "")
        assert "plain.npy" in table
        assert "mine-***.npy" in table
        assert key not in table


def test_what_the_tracker_is_given_is_masked(monkeypatch, tmp_path):
    from dlx.runs.folder import RunFolder
    from dlx.tracking import wandb

    key, given = KEYS["Slack"], {}

    class Client:
        Settings = staticmethod(lambda **named: None)

        def init(self, **named):
            given.update(named)
            return type("Run", (), {"starting_step": 0, "define_metric": lambda *a, **b: None})()

    monkeypatch.setattr(wandb, "client", Client)
    tracker = wandb.Wandb(tags=[key, "good"], notes=f"with {key}")
    run = RunFolder.create(tmp_path, "a", "b")
    tracker._open(run, {"model": {"url": f"https://me:{key}@host"}, "list": [key]}, "offline")
    run.lock.release()
    assert given["tags"] == ["***", "good"]
    assert given["notes"] == "with ***"
    assert key not in json.dumps(given["config"])
