import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder

from dlx.config.errors import UserError
from dlx.data.splits import SplitSettings
from dlx.data.two_folders import TwoFolders

LAYOUTS = {
    "trainA": ["trainA/1.png", "trainA/2.png", "trainB/9.png", "testA/3_A.png", "testB/3_B.png", "testB/7_B.png"],
    "train/A": ["train/A/1.png", "train/A/2.png", "train/B/9.png", "test/A/3.png", "test/B/3.png", "test/B/7.png"],
    "around": ["x/train_a/1.png", "x/train_a/2.png", "x/train_b/9.png", "x/test_a/3.png", "x/test_b/3.png",
               "x/test_b/7.png"],
}  # fmt: skip


def contents(names):
    return {name: png(picture(seed)) for seed, name in enumerate(names)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_splits_and_sides(layout, tmp_path):
    files = contents(LAYOUTS[layout])
    path = write_folder(tmp_path / "photos", {**files, "README.md": "about"})
    data = TwoFolders(path=path, root=tmp_path / "kept", paired=True)
    assert data.spec.image_a.shape == data.spec.image_b.shape == (3, 6, 8)
    splits = data.splits()
    assert {name: (len(part.a), len(part.b)) for name, part in splits.items()} == {"train": (2, 1), "test": (1, 2)}
    assert torch.equal(splits["train"].b.tensors["image_b"][0], torch.from_numpy(picture(2)).permute(2, 0, 1))
    test = splits["test"]
    assert test.a.tensors["match_a"].tolist() == [0]
    assert test.b.tensors["match_b"].tolist() == [0, -2]
    assert not set(splits["train"].a.tensors["match_a"].tolist()) & set(splits["train"].b.tensors["match_b"].tolist())
    assert len(data.fingerprint()["samples"]) == 6


def test_two_folders_alone_are_split_by_names(tmp_path):
    names = [f"summer/{n}.png" for n in range(30)] + [f"winter/{n}.png" for n in range(20)]
    path = write_archive(tmp_path / "photos.zip", contents(names))
    data = TwoFolders(path=path, a="summer", b="winter", root=tmp_path / "kept")
    assert not data.spec.match_a.known
    (part,) = data.splits().values()
    assert (len(part.a), len(part.b)) == (30, 20)
    found = SplitSettings(batch_size=1).split(data)
    assert set(found) == {"train", "val", "test"}
    batch = found["train"].source.take(torch.arange(20))
    assert (batch["match_a"] != batch["match_b"]).all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["A/1.png", "B/1.png", "C/1.png"], "C/1.png is in no folder A or B"),
        (["A/1.png"], "train has no images in a folder B"),
        (["testA/1.png", "testB/1.png"], "holds no images in a folder A or trainA"),
        (["trainA/1.png", "trainB/1.png", "testA/1.png"], "test has no images in a folder B"),
    ],
)
def test_other_layouts_are_refused_by_name(names, message, tmp_path):
    data = TwoFolders(path=write_folder(tmp_path / "photos", contents(names)), root=tmp_path / "kept")
    with pytest.raises(UserError, match=rf"dataset.path: .*{message}"):
        data.splits()


def test_one_folder_for_both_sides_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^b must be another folder"):
        TwoFolders(path=tmp_path, a="x", b="X")
