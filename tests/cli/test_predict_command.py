import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def seven(here):
    Image.fromarray(np.full((20, 20), 200, np.uint8)).save("seven.png")
    return "seven.png"


@pytest.mark.parametrize(("model", "panels"), [("mlp", 2), ("cnn", 3)])
def test_a_picture_of_what_the_network_looked_at(model, panels, dlx_call, only_run, tiny, seven, monkeypatch):
    from dlx.tasks import explain

    figures, draw = [], explain.draw
    monkeypatch.setattr(explain, "draw", lambda *given: (figures.append(draw(*given)), figures[-1])[1])
    words = tiny if model == "mlp" else [f"model={model}", *tiny[2:]]
    assert dlx_call("train", *words).code == 0
    call = dlx_call("predict", "@last", seven)
    assert call.code == 0, call.err
    picture = only_run() / "media" / "predict-seven.png"
    assert f"picture         {picture}" in call.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    assert len(figure.axes) == panels
    top = call.out.split()[1]
    if panels == 3:
        assert figure.axes[1].get_title() == f"Grad-CAM: {top}"
    assert figure.axes[-1].get_yticklabels()[0].get_text() == top


def test_files_of_one_stem_have_a_picture_each(dlx_call, only_run, tiny, seven):
    dlx_call("train", *tiny)
    Path("other").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("other/seven.jpg")
    told = json.loads(dlx_call("predict", "@last", seven, "other/seven.jpg", "--json").out)["predictions"]
    assert [Path(one["picture"]).name for one in told] == ["predict-seven.png", "predict-seven-2.png"]
    assert all(Path(one["picture"]).exists() for one in told)


def test_pictures_can_be_left_out(dlx_call, only_run, tiny, seven):
    dlx_call("train", *tiny)
    told = json.loads(dlx_call("predict", "@last", seven, "--no-pictures", "--json").out)["predictions"]
    assert set(told[0]) == {"file", "classes"}
    assert not list((only_run() / "media").glob("predict-*"))


def test_what_the_disk_refuses_loses_no_answer(dlx_call, only_run, tiny, seven):
    dlx_call("train", *tiny)
    media = only_run() / "media"
    for path in media.iterdir():
        path.unlink()
    media.rmdir()
    media.touch()  # a file where the folder should be
    call = dlx_call("predict", "@last", seven, "--json")
    assert call.code == 5
    (told,) = json.loads(call.out)["predictions"]
    assert len(told["classes"]) == 3
    assert told["picture"] is None
    assert "predict-seven.png not written" in call.err


def test_one_file_that_cannot_be_read_ends_no_batch(dlx_call, only_run, tiny, seven):
    dlx_call("train", *tiny)
    Path("text.png").write_text("no image")
    call = dlx_call("predict", "@last", "text.png", seven, "--json")
    assert call.code == 5
    assert "warning: text.png: not an image that can be read" in call.err
    (told,) = json.loads(call.out)["predictions"]
    assert told["file"] == seven
    assert len(told["classes"]) == 3
    assert Path(told["picture"]).name == "predict-seven.png"
    assert [path.name for path in (only_run() / "media").glob("predict-*")] == ["predict-seven.png"]


def test_where_no_file_can_be_read_nothing_is_written(dlx_call, only_run, tiny):
    dlx_call("train", *tiny)
    for name in ("text.png", "other.png"):
        Path(name).write_text("no image")
    call = dlx_call("predict", "@last", "text.png", "other.png")
    assert call.code == 2
    assert call.out == ""
    for name in ("text.png", "other.png"):
        assert f"{name}: not an image that can be read" in call.err
    assert not list((only_run() / "media").glob("predict-*"))


def test_rows_of_a_file_are_counted_as_the_file_counts_them(dlx_call, here):
    assert dlx_call("train", "model=mlp", "data=function1d", "model.hidden=[4]", "trainer.max_steps=2").code == 0
    Path("a.csv").write_text("height\n0.5\n-0.5\n")
    call = dlx_call("predict", "@last", "a.csv", "--json")
    assert call.code == 0, call.err
    assert "warning: a.csv: line 1 (height) is taken for the names of the columns" in call.err
    (told,) = json.loads(call.out)["predictions"]
    assert [len(value) for key, value in told.items() if key != "file"] == [2]
    Path("a.csv").write_text("0.5\n\ntall\n")
    call = dlx_call("predict", "@last", "a.csv")
    assert call.code == 2
    assert call.err == "error: a.csv: line 3: 'tall' is no number\n"


@pytest.mark.filterwarnings("error::UserWarning")
def test_class_names_that_cannot_be_drawn_and_one_polarity(dlx_call, only_run, tiny, monkeypatch):
    from dlx.tasks import classification, explain

    figures, sheet, draw = {}, classification.sheet, explain.draw
    monkeypatch.setattr(classification, "sheet", lambda *given: figures.setdefault("sheet", sheet(*given)))
    monkeypatch.setattr(explain, "draw", lambda *given: figures.setdefault("draw", draw(*given)))
    names = (b"cat", "猫".encode(), "😀".encode(), b"b\xffd", b"$\\frac$")
    for level, name in enumerate(names):
        folder = Path("photos", os.fsdecode(name))
        try:
            folder.mkdir(parents=True)
        except OSError:
            pytest.skip("the file system takes UTF-8 alone")
        for number in range(8):
            Image.fromarray(np.full((8, 8), 50 * level + number, np.uint8)).save(folder / f"{number}.png")
    call = dlx_call("train", *tiny, "data=image_folder", "data.path=photos", "data.size=8", "data.channels=1")
    assert call.code == 0, call.err
    call = dlx_call("predict", "@last", "photos/cat/1.png")
    assert call.code == 0, call.err
    assert (only_run() / "media" / "predict-1.png").exists()
    assert "Glyph" not in call.err
    assert "�" in {label.get_text() for label in figures["draw"].axes[-1].get_yticklabels()}  # of the Chinese class
    assert dlx_call("eval", "@last").code == 0
    (shown,), (predicted,) = figures["sheet"].axes[0].images, figures["draw"].axes[0].images
    assert shown.get_cmap() == predicted.get_cmap()
    assert float(predicted.get_array().max()) == pytest.approx(1 / 255)  # dark, as in the file
    assert "predicted classes" in figures["sheet"].texts[0].get_text()
