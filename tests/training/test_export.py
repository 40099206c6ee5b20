"""What was written gives the system's outputs; what does not is not there."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlx.config.errors import UserError
from dlx.runs.find import find_run
from dlx.training import export
from dlx.training.export import SUFFIXES, Exporter, ExportError, check_packages
from dlx.training.load import load_system


@pytest.fixture
def exporter(dlx_call, tiny):
    """Of a run with dropout, which must be off in what is written."""
    call = dlx_call("train", *tiny, "model.dropout=0.5", "model.norm=batch")
    assert call.code == 0, call.err
    return Exporter(find_run("@last"))


@pytest.mark.parametrize("format", ["safetensors", "torch_export"])
def test_a_file_gives_what_the_system_gives(format, exporter):
    path = Path("out") / f"m{SUFFIXES[format]}"
    done = exporter.write(format, path)
    assert done.difference <= 1e-6
    system, x = load_system(exporter.run), torch.randn(7, 1, 8, 8)
    if format == "torch_export":
        found = torch.export.load(path).module()(x)
    else:
        weights = load_file(path)
        assert set(weights) == set(system.state_dict())
        found = torch.func.functional_call(system, weights, (x,))
    torch.testing.assert_close(found, system(x))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o444 == 0o444 & ~_umask()


def _umask() -> int:
    probe = Path("probe")
    probe.touch()
    return 0o666 & ~probe.stat().st_mode


def test_onnx_gives_what_the_system_gives(exporter):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = Path("out/m.onnx")
    assert exporter.write("onnx", path).difference <= 1e-5
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in (*session.get_inputs(), *session.get_outputs())] == ["image", "logits"]
    x = torch.randn(7, 1, 8, 8)
    (found,) = session.run(None, {"image": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), load_system(exporter.run)(x), rtol=1e-4, atol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_outputs_are_refused_and_nothing_is_left(exporter, monkeypatch):
    def scaled(exporter, path):
        save_file({name: tensor * 1.01 for name, tensor in exporter.system.state_dict().items()}, path)

    monkeypatch.setitem(export.FORMATS, "safetensors", (scaled, export.FORMATS["safetensors"][1]))
    path = Path("out/m.safetensors")
    with pytest.raises(ExportError, match="differ by"):
        exporter.write("safetensors", path)
    assert list(path.parent.iterdir()) == []
    path.write_text("of before")
    with pytest.raises(ExportError):
        exporter.write("safetensors", path)
    assert path.read_text() == "of before"


def test_outputs_that_are_no_numbers_are_refused(exporter, monkeypatch):
    load = export.FORMATS["safetensors"][1]

    def broken(exporter, path):
        forward = load(exporter, path)
        return lambda x: forward(x) * (1.0 if len(x) == 1 else float("nan"))

    monkeypatch.setitem(export.FORMATS, "safetensors", (export.FORMATS["safetensors"][0], broken))
    with pytest.raises(ExportError):
        exporter.write("safetensors", Path("m.safetensors"))


def test_a_batch_of_another_size_is_checked_too(exporter, monkeypatch):
    def fixed(exporter, path):
        torch.export.save(torch.export.export(exporter.system, (exporter.inputs[0],)), path)

    monkeypatch.setitem(export.FORMATS, "torch_export", (fixed, export.FORMATS["torch_export"][1]))
    with pytest.raises(ExportError):
        exporter.write("torch_export", Path("m.pt2"))
    assert not Path("m.pt2").exists()


def test_the_description_makes_inputs_and_names_outputs(exporter):
    told = json.loads(json.dumps(exporter.describe()))
    assert told["classes"] == [str(digit) for digit in range(10)]
    assert told["model"]["hidden"] == [16]
    assert told["input"] == {"name": "image", "shape": ["batch", 1, 8, 8], "dtype": "float32"}
    assert told["output"]["shape"] == ["batch", 10]
    pixels = torch.randint(17, (1, 1, 8, 8), dtype=torch.uint8)
    how = told["preprocessing"]
    by_hand = (pixels.float() / how["scale"] - how["mean"][0]) / how["std"][0]
    torch.testing.assert_close(by_hand, exporter.spec.image.normalize(pixels))


def test_missing_packages_are_named_with_the_remedy(monkeypatch):
    import sys

    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"^onnx needs onnx and onnxscript: pip install 'dlx\[export\]'$"):
        check_packages("onnx")
    check_packages("torch_export")


def test_what_maps_no_inputs_to_outputs_is_a_users_error(exporter, monkeypatch):
    from dlx.models.mlp import MLP

    monkeypatch.setattr(MLP, "forward", lambda self, x: {"logits": x})
    with pytest.raises(UserError, match="MLP is no map of inputs to outputs"):
        Exporter(exporter.run)


@pytest.mark.parametrize("model", ["lstm", "gru", "latent_autoregressive"])
def test_a_sequence_model_is_exported_for_batches_of_any_size(model, dlx_call):
    width = "state" if model == "latent_autoregressive" else "hidden"
    words = ["data=stdlib_text", "data.size=2000", "data.length=4", f"model.{width}=4", "trainer.max_steps=1"]
    call = dlx_call("train", f"model={model}", *words)
    assert call.code == 0, call.err
    exporter = Exporter(find_run("@last"))
    exporter.write("torch_export", Path("m.pt2"))
    x = torch.randint(96, (7, 4))
    torch.testing.assert_close(torch.export.load("m.pt2").module()(x), exporter.system(x))


@pytest.mark.parametrize("model", ["transformer", "seq2seq"])
def test_a_translator_is_no_map_but_its_encoder_with_a_head_for_labels_is(model, dlx_call):
    """Its forward, the head of a classifier on the encoder, would give numbers for a translator too."""
    small = {"transformer": ["model.dim=8", "model.depth=1", "model.heads=2"], "seq2seq": ["model.hidden=8"]}[model]
    call = dlx_call("train", f"model={model}", "data=reverse", "data.samples=100", *small, "trainer.max_steps=1")
    assert call.code == 0, call.err
    with pytest.raises(UserError, match="is no map of inputs to outputs"):
        Exporter(find_run("@last"))
    labeled = ["data=stdlib_modules", "data.lines=10", "data.length=8", "trainer.max_steps=1"]
    call = dlx_call("train", f"model={model}", *labeled, *small)
    assert call.code == 0, call.err
    assert Exporter(find_run("@last")).classes
