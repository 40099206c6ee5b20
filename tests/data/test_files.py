import io

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from dlx.config.errors import UserError
from dlx.data.digits import Digits
from dlx.data.files import cached_dir
from dlx.tasks.reading import decode_content
from dlx.tasks.spec import Image, Label, LabeledImages, Reals

IMAGE = Image(channels=3, height=4, width=6, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_an_image_file_becomes_a_normalized_batch(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "x.png")
    batch = LabeledImages(image=IMAGE, label=Label(classes=("a",))).read("image", tmp_path / "x.png")
    assert batch.keys() == {"image"}
    assert torch.equal(batch["image"], IMAGE.normalize(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())))


def test_levels_are_scaled_to_the_datasets(tmp_path):
    Picture.fromarray(np.full((20, 20), 255, np.uint8)).save(tmp_path / "white.png")
    batch = Digits.spec.image.read(tmp_path / "white.png")
    assert batch.shape == (1, 1, 8, 8)
    assert torch.equal(batch, Digits.spec.image.normalize(torch.full((1, 1, 8, 8), 16, dtype=torch.uint8)))


def test_what_sticks_out_is_cut_off_evenly():
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 2:6] = 200
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "png")
    assert (decode_content(buffer.getvalue(), 1, (4, 4)) == 200).all()


@pytest.mark.parametrize("name", ["x.npy", "x.csv"])
def test_rows_become_a_batch(tmp_path, name):
    rows = np.arange(6.0).reshape(3, 2)
    if name == "x.npy":
        np.save(tmp_path / name, rows)
    else:
        np.savetxt(tmp_path / name, rows, delimiter=",")
    assert torch.equal(Reals(size=2).read(tmp_path / name), torch.arange(6.0).view(3, 2))
    with pytest.raises(UserError, match=r"3 numbers per row"):
        Reals(size=3).read(tmp_path / name)


@pytest.mark.parametrize("text", ["a,b\n1,2\n3,4\n", "\ufeff1,2\r\n3,4", "# a, b\n\n1,2\n3,4\n\n"])
def test_a_line_of_names_and_empty_lines_are_no_rows(tmp_path, text):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    assert torch.equal(Reals(size=2).read(tmp_path / "x.csv"), torch.tensor([[1.0, 2], [3, 4]]))


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no rows"), ("a,b\n", "holds no rows"), ("1,2\n3\n", "line 2: 1 numbers, the lines before have 2")],
)
def test_what_is_wrong_with_rows_is_said(tmp_path, text, said):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        Reals(size=2).read(tmp_path / "x.csv")


@pytest.mark.parametrize(("name", "entry"), [("x.png", IMAGE), ("x.csv", Reals(size=1))])
def test_unreadable_files_are_named(tmp_path, name, entry):
    (tmp_path / name).write_text("nothing of use")
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        entry.read(tmp_path / name)


def test_a_kept_folder_is_whole_or_absent(tmp_path):
    folder = tmp_path / "deep" / "folder"

    def fail(into):
        (into / "half").write_text("")
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        cached_dir(folder, fail)
    assert list(folder.parent.iterdir()) == []

    def fill_while_another_is_faster(into):
        (into / "file").write_text("ours")
        folder.mkdir()
        (folder / "file").write_text("theirs")

    assert cached_dir(folder, fill_while_another_is_faster) == folder
    assert (folder / "file").read_text() == "theirs"
    assert list(folder.parent.iterdir()) == [folder]
    assert cached_dir(folder, fail) == folder
