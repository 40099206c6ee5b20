import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


PLAIN = """
import json, sys
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

told = json.load(open(sys.argv[1] + ".json"))
how, size = told["preprocessing"], told["preprocessing"]["resize"]
image = ImageOps.exif_transpose(Image.open(sys.argv[2]))
if image.has_transparency_data:
    ground = Image.new("RGBA", image.size, (round(255 * how["background"]),) * 3 + (255,))
    image = Image.alpha_composite(ground, image.convert("RGBA"))
image = ImageOps.fit(image.convert(how["mode"]), (size["width"], size["height"]), Image.Resampling.BILINEAR)
level = np.round(np.asarray(image, np.float32).reshape(size["height"], size["width"], -1) * how["scale"] / 255)
x = (level / how["scale"] - np.float32(how["mean"])) / np.float32(how["std"])
session = onnxruntime.InferenceSession(sys.argv[1] + ".onnx")
known = session.get_modelmeta().custom_metadata_map
assert json.loads(known["classes"]) == told["classes"]
assert json.loads(known["preprocessing"]) == how
(logits,) = session.run(None, {told["input"]["name"]: x.transpose(2, 0, 1)[None].astype(np.float32)})
p = np.exp(logits[0] - logits[0].max())
print(json.dumps(dict(zip(told["classes"], (p / p.sum()).tolist()))))
"""


def test_a_script_without_dlx_gets_the_numbers_of_predict(dlx_call, here, monkeypatch):
    """Photos that are turned, transparent and of another size: model.json says all that a program must do."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("DLX_DATA", "cache")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        Path(f"photos/{label}").mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (21, 33, 4)).astype(np.uint8)
            Image.fromarray(pixels).save(f"photos/{label}/{number}.png")
    turned = Image.fromarray(rng.integers(0, 256, (40, 25, 3)).astype(np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save("turned.jpg", exif=exif)
    words = ("model=cnn", "data=image_folder", "data.path=photos", "data.size=12", "trainer.max_steps=3")
    assert dlx_call("train", *words).code == 0
    assert dlx_call("export", "@last", "--format", "onnx", "--output", "m.onnx").code == 0
    for photo in ("photos/cat/0.png", "turned.jpg"):
        (told,) = json.loads(dlx_call("predict", "@last", photo, "--no-pictures", "--json").out)["predictions"]
        found = subprocess.run([sys.executable, "-c", PLAIN, "m", photo], capture_output=True, text=True, check=True)
        plain = json.loads(found.stdout)
        assert told["classes"] == pytest.approx(plain, abs=1e-4)
