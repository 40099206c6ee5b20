import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder

from dlx.config.errors import UserError
from dlx.data.celeba import CelebA

TABLE = "4\nBald Male Young\n1.jpg  1 -1  1\n2.jpg -1 -1 -1\n3.jpg  1  1 -1\n9.jpg 1 1 1\n"
CSV = "image_id,Bald,Male,Young\n1.jpg,1,-1,1\n2.jpg,-1,-1,-1\n3.jpg,1,1,-1\n"
PARTITION = "1.jpg 0\n2.jpg 1\n3.jpg 2\n"
FACES = {f"celeba/img_align_celeba/{n}.jpg": png(picture(n, 22, 18)) for n in (1, 2, 3)}


def celeba(tmp_path, texts, **settings):
    path = write_folder(tmp_path / "files", {**FACES, **texts})
    return CelebA(path=path, root=tmp_path / "kept", **{"attributes": None, "size": 16, **settings})


@pytest.mark.parametrize("texts", [{"celeba/list_attr_celeba.txt": TABLE}, {"list_attr_celeba.csv": CSV}])
def test_attributes_are_those_of_the_table(texts, tmp_path):
    data = celeba(tmp_path, texts, attributes=("Young", "Bald"))
    assert data.spec.attributes.names == ("Young", "Bald")
    assert data.spec.image.shape == (3, 16, 16)
    (source,) = data.splits().values()
    assert source.tensors["attributes"].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert celeba(tmp_path, texts).spec.attributes.names == ("Bald", "Male", "Young")


def test_its_own_splits_are_read_from_an_archive(tmp_path):
    path = write_archive(
        tmp_path / "c.zip", {**FACES, "list_attr_celeba.txt": TABLE, "list_eval_partition.txt": PARTITION}
    )
    splits = CelebA(path=path, attributes=("Male",), size=8, root=tmp_path / "kept").splits()
    assert {name: part.tensors["attributes"].tolist() for name, part in splits.items()} == {
        "train": [[0]], "val": [[0]], "test": [[1]]
    }  # fmt: skip
    assert splits["test"].tensors["image"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ({}, {}, "dataset.path: .* holds no list_attr_celeba"),
        ({"list_attr_celeba.txt": TABLE}, {"attributes": ("Blad",)}, "dataset.attributes: .*no Blad.*Bald"),
        ({"list_attr_celeba.txt": TABLE + "7.jpg 1 2 1\n"}, {}, "line 7: is no image with 3 of 1 and -1"),
        ({"list_attr_celeba.txt": "1\nBald\n7.jpg 1\n"}, {}, "holds no image that list_attr_celeba has"),
        ({"list_attr_celeba.txt": "\n"}, {}, "no names of attributes"),
    ],
)
def test_what_it_refuses(texts, settings, message, tmp_path):
    data = celeba(tmp_path, texts, **settings)
    with pytest.raises(UserError, match=message):
        data.spec  # noqa: B018


def test_attributes_are_distinct(tmp_path):
    with pytest.raises(ValueError, match=r"^attributes must be distinct"):
        CelebA(path=tmp_path, attributes=("Male", "Male"))
