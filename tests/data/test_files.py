import io

import numpy as np
import pytest
import torch
from PIL import Image

from dlx.config.errors import UserError
from dlx.data.digits import Digits
from dlx.data.files import decode_image, kept_folder, read_inputs
from dlx.tasks.spec import ImageSpec, VectorSpec

SPEC = ImageSpec(channels=3, height=4, width=6, classes=("a",), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_an_image_file_becomes_a_normalized_batch(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    batch = read_inputs(tmp_path / "x.png", SPEC)
    assert torch.equal(batch, SPEC.normalize(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())))


def test_levels_are_scaled_to_the_datasets(tmp_path):
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(tmp_path / "white.png")
    batch = read_inputs(tmp_path / "white.png", Digits.spec)
    assert batch.shape == (1, 1, 8, 8)
    assert torch.equal(batch, Digits.spec.normalize(torch.full((1, 1, 8, 8), 16, dtype=torch.uint8)))


def test_what_sticks_out_is_cut_off_evenly():
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 2:6] = 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    assert (decode_image(buffer.getvalue(), 1, (4, 4)) == 200).all()


@pytest.mark.parametrize("name", ["x.npy", "x.csv"])
def test_rows_become_a_batch(tmp_path, name):
    rows = np.arange(6.0).reshape(3, 2)
    if name == "x.npy":
        np.save(tmp_path / name, rows)
    else:
        np.savetxt(tmp_path / name, rows, delimiter=",")
    assert torch.equal(read_inputs(tmp_path / name, VectorSpec(num_features=2)), torch.arange(6.0).view(3, 2))
    with pytest.raises(UserError, match=r"3 numbers per row"):
        read_inputs(tmp_path / name, VectorSpec(num_features=3))


@pytest.mark.parametrize("text", ["a,b\n1,2\n3,4\n", "\ufeff1,2\r\n3,4", "# a, b\n\n1,2\n3,4\n\n"])
def test_a_line_of_names_and_empty_lines_are_no_rows(tmp_path, text):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    assert torch.equal(read_inputs(tmp_path / "x.csv", VectorSpec(num_features=2)), torch.tensor([[1.0, 2], [3, 4]]))


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no rows"), ("a,b\n", "holds no rows"), ("1,2\n3\n", "number of columns changed from 2 to 1 at row 2")],
)
def test_what_is_wrong_with_rows_is_said(tmp_path, text, said):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_inputs(tmp_path / "x.csv", VectorSpec(num_features=2))


@pytest.mark.parametrize(("name", "spec"), [("x.png", SPEC), ("x.csv", VectorSpec(num_features=1))])
def test_unreadable_files_are_named(tmp_path, name, spec):
    (tmp_path / name).write_text("nothing of use")
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        read_inputs(tmp_path / name, spec)


def test_a_kept_folder_is_whole_or_absent(tmp_path):
    folder = tmp_path / "deep" / "folder"

    def fail(into):
        (into / "half").write_text("")
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        kept_folder(folder, fail)
    assert list(folder.parent.iterdir()) == []

    def fill_while_another_is_faster(into):
        (into / "file").write_text("ours")
        folder.mkdir()
        (folder / "file").write_text("theirs")

    assert kept_folder(folder, fill_while_another_is_faster) == folder
    assert (folder / "file").read_text() == "theirs"
    assert list(folder.parent.iterdir()) == [folder]
    assert kept_folder(folder, fail) == folder
