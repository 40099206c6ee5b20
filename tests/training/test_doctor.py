import importlib.metadata

import torch

from dlx.training import doctor


def test_a_real_training_says_that_all_is_well():
    told = doctor.try_training()
    assert told["ok"], told
    assert told["accuracy"] > 0.9
    assert told["throughput"] > 100


def test_a_training_that_takes_too_long_is_cut_off():
    told = doctor.try_training(seconds=0)
    assert not told["ok"]
    assert told["reason"].startswith("not done after 0 s")


def test_what_breaks_is_said_and_not_raised(monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: 1 / 0)
    told = doctor.try_training()
    assert not told["ok"]
    assert told["reason"] == "ZeroDivisionError: division by zero"


def test_a_network_that_learns_nothing_is_not_well(monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: None)
    told = doctor.try_training()
    assert not told["ok"]
    assert "where 0.9 is the least" in told["reason"]


def test_extras_are_those_of_the_package(monkeypatch):
    lines = ["torch>=2", "numpy>=2; extra == 'export'", 'no-such-thing[x]>=1 ; extra == "ray"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    found = doctor.extras()
    assert set(found) == {"export", "ray"}
    assert found["export"]["numpy"] == importlib.metadata.version("numpy")
    assert found["ray"] == {"no-such-thing": None}


def test_directories(tmp_path):
    deep = doctor.check_dir(tmp_path / "a" / "b")
    assert deep["writable"]
    assert not deep["exists"]
    assert deep["free_gib"] > 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert not doctor.check_dir(tmp_path / "file")["writable"]


def test_devices_name_the_cpu_and_how_it_computes():
    cpu = doctor.devices()["cpu"]
    assert cpu["threads"] == torch.get_num_threads()
    assert cpu["cores"] >= 1
    assert isinstance(cpu["bf16"], bool)
