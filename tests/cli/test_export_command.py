import json
import sys
from pathlib import Path

import pytest

from dlx.training import export


@pytest.fixture
def no_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)


def test_export_writes_all_it_can_and_says_what_it_left_out(dlx_call, only_run, tiny, no_onnx):
    dlx_call("train", *tiny)
    call = dlx_call("export", "@last")
    assert call.code == 0, call.err
    folder = only_run() / "export"
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.pt2", "model.safetensors"]
    assert call.out.count("largest difference") == 2
    assert "pip install 'dlx[export]'" in call.out
    assert json.loads((folder / "model.json").read_text())["classes"][7] == "7"


def test_one_format_under_a_name_of_ones_own(dlx_call, tiny):
    dlx_call("train", *tiny)
    call = dlx_call("export", "@last", "--format", "safetensors", "--output", "mine/net.safetensors", "--json")
    told = json.loads(call.out)
    assert [file["path"] for file in told["files"]] == ["mine/net.safetensors"]
    assert sorted(path.name for path in Path("mine").iterdir()) == ["net.json", "net.safetensors"]


def test_bad_requests(dlx_call, only_run, tiny, no_onnx):
    dlx_call("train", *tiny)
    call = dlx_call("export", "@last", "--format", "onnx")
    assert call.code == 2
    assert len(call.err.splitlines()) == 1
    assert "pip install 'dlx[export]'" in call.err
    call = dlx_call("export", "@last", "--output", "net.pt2")
    assert call.code == 2
    assert "--format" in call.err
    assert dlx_call("export", "@last", "--format", "pickle").code == 2
    assert not (only_run() / "export").exists()


def test_wrong_numbers_end_with_code_1(dlx_call, only_run, tiny, monkeypatch):
    dlx_call("train", *tiny)
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    call = dlx_call("export", "@last", "--format", "safetensors")
    assert call.code == 1
    assert "outputs differ" in call.out
    assert list((only_run() / "export").iterdir()) == []
