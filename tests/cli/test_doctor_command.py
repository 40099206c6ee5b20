import json

import torch


def test_doctor_says_what_is_here_and_trains(dlx_call, here, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-mine")
    call = dlx_call("doctor")
    assert call.code == 0, call.err
    told = {line.split()[0]: line for line in call.out.splitlines()}
    assert torch.__version__.partition("+")[0] in told["torch"]
    assert {"dlx", "python", "cpu", "runs", "data", "W&B", "training"} <= set(told)
    assert "writable" in told["runs"]
    assert "a key is there" in told["W&B"]
    assert "secret-of-mine" not in call.out + call.err
    assert "accuracy 0.9" in told["training"]
    assert list(here.iterdir()) == []


def test_doctor_ends_with_1_when_the_training_fails(dlx_call, monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: 1 / 0)
    call = dlx_call("doctor", "--json")
    assert call.code == 1
    told = json.loads(call.out)
    assert told["ok"] is False
    assert "ZeroDivisionError" in told["training"]["reason"]
    assert set(told) == {"ok", "versions", "devices", "places", "wandb_key", "extras", "training"}
