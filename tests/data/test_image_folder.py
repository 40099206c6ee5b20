import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlx.config.errors import UserError
from dlx.data.archive import read_file
from dlx.data.image_folder import ImageFolder, arrange, channel_statistics


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def picture(seed, height=6, width=6):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "cache")


NAMES = ["cat/1.png", "cat/2.png", "cat/sub/3.png", "dog/1.PNG", "dog/2.png"]


def write_folder(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def write_archive(path, contents, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path, root):
    pictures = {name: picture(seed) for seed, name in enumerate(NAMES)}
    contents = {name: png(p) for name, p in pictures.items()}
    extra = {"README.txt": b"about", "cat/.hidden.png": b"", "__MACOSX/cat/1.png": b"", "cat/._1.png": b""}
    dataset = ImageFolder(path=write_folder(tmp_path / "images", contents | extra), root=root)
    assert dataset.spec.label.classes == ("cat", "dog")
    assert dataset.spec.image.shape == (3, 6, 6)
    (source,) = dataset.splits().values()
    assert source.tensors["label"].tolist() == [0, 0, 0, 1, 1]
    assert source.tensors["image"].dtype == torch.uint8
    expected = np.stack([pictures[name] for name in sorted(NAMES)]).transpose(0, 3, 1, 2)
    assert (source.tensors["image"].numpy() == expected).all()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("prefix", ["", "./", "data/pets/"])
def test_an_archive_is_the_same_data_as_its_folder(tmp_path, root, mode, prefix):
    contents = {name: png(picture(seed)) for seed, name in enumerate(NAMES)}
    folder = ImageFolder(path=write_folder(tmp_path / "images", contents), root=root)
    shuffled = {prefix + name: contents[name] for name in reversed(NAMES)}
    archive = ImageFolder(path=write_archive(tmp_path / "images.tar", shuffled, mode), root=root)
    assert archive.spec == folder.spec
    ours, theirs = archive.splits()["train"].tensors, folder.splits()["train"].tensors
    assert all(torch.equal(ours[name], theirs[name]) for name in ("image", "label"))


def test_split_folders_are_splits(tmp_path, root):
    names = ["train/a/1.png", "train/b/1.png", "train/b/2.png", "valid/b/1.png", "test/a/1.png"]
    pictures = {name: picture(seed) for seed, name in enumerate(names)}
    contents = {f"set/{name}": png(p) for name, p in pictures.items()}
    dataset = ImageFolder(path=write_archive(tmp_path / "set.tar.gz", contents), root=root)
    splits = dataset.splits()
    assert {name: source.tensors["label"].tolist() for name, source in splits.items()} == {
        "train": [0, 1, 1],
        "val": [1],
        "test": [0],
    }
    train = np.stack([pictures[name] for name in names[:3]]) / 255
    assert dataset.spec.image.mean == pytest.approx(train.mean((0, 1, 2)))
    assert dataset.spec.image.std == pytest.approx(train.std((0, 1, 2)))


def test_decoded_images_are_kept_until_the_content_changes(tmp_path, root, monkeypatch):
    contents = {name: png(picture(seed)) for seed, name in enumerate(NAMES)}
    path = write_folder(tmp_path / "images", contents)
    first = ImageFolder(path=path, root=root).splits()["train"].tensors["image"].clone()
    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "_decode", None)
        assert torch.equal(ImageFolder(path=path, root=root).splits()["train"].tensors["image"], first)
    (tmp_path / "images" / "cat" / "1.png").write_bytes(png(picture(99)))
    os.utime(tmp_path / "images" / "cat" / "1.png", ns=(1, 1))
    changed = ImageFolder(path=path, root=root).splits()["train"].tensors["image"]
    assert not torch.equal(changed, first)
    assert ImageFolder(path=path, root=root, channels=1).spec.image.shape == (1, 6, 6)
    assert len(list((tmp_path / "cache" / "image_folder").iterdir())) == 3


def test_writing_to_a_source_leaves_the_kept_arrays(tmp_path, root):
    path = write_folder(tmp_path / "images", {name: png(picture(seed)) for seed, name in enumerate(NAMES)})
    image = ImageFolder(path=path, root=root).splits()["train"].tensors["image"]
    before = image.clone()
    image.zero_()
    assert torch.equal(ImageFolder(path=path, root=root).splits()["train"].tensors["image"], before)


def test_images_of_several_sizes_are_scaled_and_it_is_said(tmp_path, root):
    contents = {"a/1.png": png(picture(0, 6, 6)), "b/2.png": png(picture(1, 8, 10))}
    path = write_folder(tmp_path / "images", contents)
    chosen = ImageFolder(path=path, root=root)
    assert chosen.splits()["train"].tensors["image"].shape[2:] == chosen.spec.image.shape[1:]
    (said,) = chosen.notes()
    assert "photos of 2 sizes are scaled to 6x6" in said or "photos of 2 sizes are scaled to 8x8" in said
    assert "dataset.size sets another" in said
    dataset = ImageFolder(path=path, root=root, size=4)
    assert dataset.spec.image.shape == (3, 4, 4)
    assert dataset.splits()["train"].tensors["image"].shape == (2, 3, 4, 4)


def test_images_of_one_size_need_not_be_square(tmp_path, root):
    path = write_folder(tmp_path / "images", {"a/1.png": png(picture(0, 4, 7)), "b/2.png": png(picture(1, 4, 7))})
    assert ImageFolder(path=path, root=root).spec.image.shape == (3, 4, 7)


@pytest.mark.parametrize("content", [b"", b"not an image", png(picture(0))[:60]])
def test_a_corrupt_image_is_named(tmp_path, root, content):
    contents = {"a/1.png": png(picture(0)), "b/bad.png": content}
    with pytest.raises(UserError, match=r"b/bad\.png cannot be decoded"):
        ImageFolder(path=write_archive(tmp_path / "x.tar", contents), root=root).splits()
    assert not list((tmp_path / "cache" / "image_folder").iterdir())


def test_linked_class_folders_are_followed_and_circles_are_not(tmp_path, root):
    contents = {name: png(picture(i)) for i, name in enumerate(NAMES)}
    path = write_folder(tmp_path / "photos", contents)
    write_folder(tmp_path / "elsewhere", {"1.png": png(picture(7))})
    (tmp_path / "photos" / "bird").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "cat" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")  # a circle through a second link
    dataset = ImageFolder(path=path, root=root)
    assert dataset.spec.label.classes == ("bird", "cat", "dog")
    assert dataset.splits()["train"].tensors["label"].bincount().tolist() == [1, 3, 2]


def test_files_that_cannot_be_read_are_named(tmp_path, root):
    path = write_folder(tmp_path / "photos", {name: png(picture(i)) for i, name in enumerate(NAMES)})
    (tmp_path / "photos" / "cat" / "9.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"^dataset\.path: .*9\.png: cannot be read"):
        ImageFolder(path=path, root=root).splits()
    with pytest.raises(UserError, match=r"^dataset\.path: .*gone\.png: cannot be read"):
        read_file(tmp_path / "gone.png")


def test_an_image_whose_bytes_in_a_zip_are_damaged_is_one_line(tmp_path, root):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number, name in enumerate(NAMES):
            file.writestr(name, png(picture(number)))
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 12] ^= 255  # its sum, which the archive holds, is another now
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"^dataset\.path: .*photos\.zip: not an archive that can be read to its end"):
        ImageFolder(path=archive, root=root).splits()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode here")
def test_names_need_not_be_utf_8(tmp_path, root):
    path = write_folder(tmp_path / "photos", {name: png(picture(i)) for i, name in enumerate(NAMES)})
    (tmp_path / "photos" / "cat" / "1.png").rename(os.fsdecode(os.fsencode(path) + b"/cat/caf\xe9.png"))
    assert len(ImageFolder(path=path, root=root).splits()["train"]) == len(NAMES)


def test_16_bit_images_are_refused_rather_than_clipped(tmp_path, root):
    contents = {"a/1.png": png(np.full((4, 4), 40_000, np.uint16))}
    with pytest.raises(UserError, match=r"a/1\.png .*16-bit"):
        ImageFolder(path=write_folder(tmp_path / "x", contents), root=root).splits()


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, root, name):
    contents = {"a/1.png": png(picture(0)), name: png(picture(1))}
    with pytest.raises(UserError, match=r"^dataset\.path: .*x\.tar: refused, .*evil\.png"):
        ImageFolder(path=write_archive(tmp_path / "x.tar", contents), root=root).splits()
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_an_archive_are_refused(tmp_path, root, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("a/link.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(UserError, match=r"refused, 'a/link\.png' is a link or device"):
        ImageFolder(path=str(tmp_path / "x.tar"), root=root).splits()


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.95])
def test_a_cut_off_archive_is_named(tmp_path, root, keep):
    whole = Path(write_archive(tmp_path / "x.tar.gz", {f"a/{i}.png": png(picture(i)) for i in range(20)}))
    content = whole.read_bytes()
    whole.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(UserError, match=r"^dataset\.path: .*x\.tar\.gz"):
        ImageFolder(path=str(whole), root=root).splits()


def test_what_is_not_there_is_named(tmp_path, root):
    with pytest.raises(UserError, match=r"^dataset\.path: .*nowhere"):
        _ = ImageFolder(path=str(tmp_path / "nowhere"), root=root).spec


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([], "no images"),
        (["1.png", "2.png"], "in no class folder"),
        (["a/1.png", "2.png"], "in no class folder"),
        (["train/1.png", "train/a/1.png"], "in no class folder"),
        (["test/a/1.png"], "no train folder"),
        (["train/a/1.png", "test/b/1.png"], "classes that train has not: b"),
        (["train/a/1.png", "test/a/1.png", "new/a/1.png"], "other images beside test, train: new"),
    ],
)
def test_layouts_that_are_no_class_folders_are_refused(names, match):
    with pytest.raises(ValueError, match=match):
        arrange(names)


@pytest.mark.parametrize(
    ("names", "classes", "splits"),
    [
        (["train/1.png", "bus/1.png"], ["bus", "train"], {"train": 2}),  # vehicles
        (["cat/1.png"], ["cat"], {"train": 1}),
        (["x/train/a/1.png", "x/test/a/1.png"], ["a"], {"train": 1, "test": 1}),
        (["train/a/1.png", "train/b/1.png"], ["a", "b"], {"train": 2}),
    ],
)
def test_layouts(names, classes, splits):
    found, members = arrange(names)
    assert found == classes
    assert {name: len(part) for name, part in members.items()} == splits


def test_a_constant_channel_has_a_usable_std():
    mean, std = channel_statistics(np.full((3, 1, 2, 2), 51, np.uint8))
    assert mean == pytest.approx([0.2])
    assert std == [1.0]


@pytest.mark.parametrize(("given", "name"), [({"size": 0}, "size"), ({"channels": 2}, "channels")])
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} "):
        ImageFolder(path="x", **given)


def test_real_photographs(tmp_path, root):
    """The first few hundred images of CIFAR-10 as JPEGs."""
    archive = Path(os.environ.get("DLX_TEST_DATA", "nowhere"), "cifar10_jpeg.tar.gz")
    if not archive.is_file():
        pytest.skip("DLX_TEST_DATA has no cifar10_jpeg.tar.gz")
    contents = {}
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.isfile() and len(contents) < 300:
                contents[member.name] = tar.extractfile(member).read()
            elif len(contents) == 300:
                break
    dataset = ImageFolder(path=write_archive(tmp_path / "few.tar.gz", contents), root=root)
    assert dataset.spec.image.shape == (3, 32, 32)
    assert sum(len(source) for source in dataset.splits().values()) == 300
    assert 0.3 < sum(dataset.spec.image.mean) / 3 < 0.7


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path, root):
    sideways = Image.fromarray(picture(0, height=4, width=6))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    buffer = io.BytesIO()
    sideways.save(buffer, "png", exif=exif)
    dataset = ImageFolder(path=write_folder(tmp_path / "images", {"cat/1.png": buffer.getvalue()}), root=root)
    assert dataset.spec.image.shape == (3, 6, 4)


def test_a_huge_member_is_refused_before_it_is_read(tmp_path, root, monkeypatch):
    monkeypatch.setattr("dlx.data.archive.MAX_IMAGE_BYTES", 10)
    path = write_archive(tmp_path / "a.tar.gz", {"cat/1.png": png(picture(0))})
    with pytest.raises(UserError, match=r"refused, 'cat/1\.png' has"):
        ImageFolder(path=path, root=root).splits()
