import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from dlx.config.errors import UserError
from dlx.runs.checkpoint import latest_checkpoint, load_state, load_weights, save_checkpoint, verify


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3,), value), "b": torch.ones(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)}


def test_round_trip_with_tied_and_strided_tensors(tmp_path):
    given = weights(1.0)
    given["tied"] = given["a"]
    folder = save_checkpoint(tmp_path, 3, given, weights(2.0), {"step": 3, "history": [{"a": 1.0}]})
    assert folder.name == "step-00000003"
    assert (tmp_path / "latest").read_text() == "step-00000003\n"
    loaded = load_weights(folder / "last.safetensors")
    assert all(torch.equal(loaded[name], given[name]) for name in given)
    assert load_state(folder) == {"step": 3, "history": [{"a": 1.0}]}


def test_old_ones_go_and_one_stays_to_fall_back_on(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, weights(step), weights(step), {})
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("fault", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors", "state.pt", "manifest.json"])
def test_a_damaged_one_is_passed_over_and_named(fault, name, tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, weights(step), weights(step), {})
    path = tmp_path / "step-00000002" / name
    content = path.read_bytes()
    if fault == "delete":
        path.unlink()
    else:
        path.write_bytes(
            content[:-9] if fault == "truncate" else content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        )
    folder, problems = latest_checkpoint(tmp_path)
    assert folder is not None
    if fault == "flip" and name == "manifest.json" and folder.name.endswith("2"):
        verify(folder)  # a flipped blank in the manifest changes nothing
        return
    assert folder.name == "step-00000001"
    assert "step-00000002" in problems[0]
    with pytest.raises(UserError):
        verify(tmp_path / "step-00000002")


def listed(last, best, state) -> str:
    return json.dumps({"step": 2, "files": {"last.safetensors": last, "best.safetensors": best, "state.pt": state}})


WRONG = {"bytes": 1, "sha256": "x"}
SHAPES = (
    "", "{}", "[]", "3", '"x"', "null", "{", '{"files": {}}', '{"files": []}', '{"files": 3}', '{"files": null}',
    '{"files": {"last.safetensors": {}}}', listed(3, [], None), listed({}, {}, {}), listed(WRONG, WRONG, WRONG),
    '{"files": {"../step-00000001/last.safetensors": {}}}', "[" * 100_000, '{"files": ' * 2000,
)  # fmt: skip


@pytest.mark.parametrize("text", SHAPES)
def test_a_manifest_of_any_shape_is_damage_like_any_other(text, tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, weights(step), weights(step), {})
    (tmp_path / "step-00000002" / "manifest.json").write_text(text)
    folder, problems = latest_checkpoint(tmp_path)
    assert folder is not None
    assert folder.name == "step-00000001"
    assert "step-00000002" in problems[0]
    assert len(problems[0].splitlines()) == 1


def test_steps_are_in_the_order_of_numbers(tmp_path):
    for step in (99_999_999, 100_000_000, 5):
        save_checkpoint(tmp_path, step, weights(1.0), weights(1.0), {})
    assert latest_checkpoint(tmp_path)[0].name == "step-100000000"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(1, 9))
def test_a_step_that_is_saved_twice_is_there_whenever_it_is_killed(at, tmp_path, monkeypatch):
    """At the at-th change of the folder; what was put aside comes back with the next one that saves."""
    save_checkpoint(tmp_path, 3, weights(1.0), weights(1.0), {"of": "first"})
    calls = []

    def dying(function):
        def call(*arguments, **named):
            calls.append(function)
            if len(calls) >= at:
                raise Killed
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "rename"), (Path, "replace"), (shutil, "rmtree"), (os, "fsync")):
            patch.setattr(owner, name, dying(getattr(owner, name)))
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, 3, weights(2.0), weights(2.0), {"of": "second"})
    found, problems = latest_checkpoint(tmp_path)
    assert found is not None
    assert not problems
    assert load_state(found)["of"] in ("first", "second")
    save_checkpoint(tmp_path, 4, weights(3.0), weights(3.0), {"of": "third"})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["latest", "step-00000003", "step-00000004"]
    verify(tmp_path / "step-00000003")


def test_the_second_time_counts(tmp_path):
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path, 3, weights(value), weights(value), {"of": value})
    found, _ = latest_checkpoint(tmp_path)
    assert load_state(found) == {"of": 2.0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000003"]


def test_folders_that_are_links_are_no_checkpoints(tmp_path):
    outside = tmp_path / "outside"
    save_checkpoint(outside, 1, weights(1.0), weights(1.0), {})
    root = tmp_path / "run" / "checkpoints"
    root.mkdir(parents=True)
    (root / "step-00000009").symlink_to(outside / "step-00000001")
    assert latest_checkpoint(root) == (None, [])
    for _ in range(3):
        save_checkpoint(root, 1, weights(1.0), weights(1.0), {})
    assert (outside / "step-00000001" / "state.pt").is_file()
    shutil.rmtree(root)
    root.symlink_to(outside)
    with pytest.raises(UserError, match="checkpoints: is a link"):
        save_checkpoint(root, 2, weights(1.0), weights(1.0), {})
    found, problems = latest_checkpoint(root)
    assert found is None
    assert "checkpoints: is a link" in problems[0]


def test_non_finite_weights_are_never_good(tmp_path):
    save_checkpoint(tmp_path, 1, weights(1.0), weights(1.0), {})
    with pytest.raises(ValueError, match="non-finite"):
        save_checkpoint(tmp_path, 2, weights(float("nan")), weights(1.0), {})
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000001"]


def test_what_a_kill_left_behind_is_swept_and_a_full_disk_leaves_the_old(tmp_path, monkeypatch):
    (tmp_path / ".tmp-dead").mkdir()
    save_checkpoint(tmp_path, 1, weights(1.0), weights(1.0), {})
    assert not list(tmp_path.glob(".tmp-*"))

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, 2, weights(1.0), weights(1.0), {})
    assert latest_checkpoint(tmp_path)[0].name == "step-00000001"


def test_a_pickle_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    torch.save({"a": Bomb()}, tmp_path / "state.pt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        load_state(tmp_path)


def test_memory_format_is_the_modules_own():
    from dlx.runs.checkpoint import assign

    module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assign(module, {name: tensor.contiguous() for name, tensor in module.state_dict().items()})
    assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_disk_that_refuses_is_an_oserror_from_every_writer(tmp_path):
    """safetensors and torch.save have errors of their own, which ended a training whose disk was full."""
    code = """
import resource, sys, torch
from pathlib import Path
from dlx.runs.checkpoint import save_checkpoint
big = {"w": torch.zeros(100_000)}
small = {"w": torch.zeros(10)}
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
for weights, state in ((big, {}), (small, {"big": torch.zeros(100_000)})):
    try:
        save_checkpoint(Path(sys.argv[1]), 1, weights, weights, state)
    except OSError:
        print("refused")
print(len(list(Path(sys.argv[1]).iterdir())))
"""
    import signal
    import subprocess
    import sys

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    finally:
        signal.signal(signal.SIGXFSZ, before)
    assert done.stdout.split() == ["refused", "refused", "0"], done.stderr
