import hashlib
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch

from dlx.config.errors import UserError
from dlx.data.cifar import CIFAR10, CIFAR100


@pytest.fixture
def published(tmp_path, monkeypatch, serve):
    """An archive of 6 + 3 images in place of the published one; torchvision is told its sums."""
    from torchvision import datasets

    rng = np.random.default_rng(0)
    folder = tmp_path / "made" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    contents = {
        name: {b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), b"labels": rng.integers(0, 10, n).tolist()}
        for name, n in (("data_batch_1", 4), ("data_batch_2", 2), ("test_batch", 3))
    }
    plain = {name: {"data": part[b"data"], "labels": part[b"labels"]} for name, part in contents.items()}
    sums = {}
    for name, value in {**plain, "batches.meta": {"label_names": list(CIFAR10.spec.label.classes)}}.items():
        content = pickle.dumps(value)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    archive = tmp_path / "made" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    lists = {"train_list": ["data_batch_1", "data_batch_2"], "test_list": ["test_batch"]}
    for name, files in lists.items():
        monkeypatch.setattr(datasets.CIFAR10, name, [[file, sums[file]] for file in files])
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    )
    monkeypatch.setattr(CIFAR10, "md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "url", serve(archive.parent))
    return plain


def check(dataset, published):
    splits = dataset.splits()
    for split, names in (("train", ["data_batch_1", "data_batch_2"]), ("test", ["test_batch"])):
        tensors = splits[split].tensors
        image = np.concatenate([published[name]["data"] for name in names]).reshape(-1, 3, 32, 32)
        assert tensors["image"].dtype == torch.uint8
        assert (tensors["image"].numpy() == image).all()
        assert tensors["label"].dtype == torch.int64
        assert tensors["label"].tolist() == [label for name in names for label in published[name]["labels"]]


def test_it_is_downloaded_decoded_once_and_mapped_afterwards(published, tmp_path, monkeypatch):
    root = tmp_path / "root"
    check(CIFAR10(root=str(root)), published)
    assert sorted(path.name for path in (root / "cifar10").iterdir()) == ["arrays", CIFAR10.archive]
    assert len(list((root / "cifar10" / "arrays").iterdir())) == 4
    monkeypatch.setattr(CIFAR10, "_decode", None)
    check(CIFAR10(root=str(root)), published)
    script = (
        f"from dlx.data.cifar import CIFAR10\nCIFAR10(root={str(root)!r}).splits()\n"
        "import sys\nprint([m for m in ('torchvision', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["", "cifar10"])
@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py"])
def test_archive_and_unpacked_folder_are_found(published, tmp_path, folder, name):
    place = tmp_path / "root" / folder
    place.mkdir(parents=True)
    (tmp_path / "made" / name).rename(place / name)
    check(CIFAR10(root=str(tmp_path / "root"), download=False), published)
    assert (place / name).exists()


def test_damaged_archives_are_named_and_leave_nothing(published, tmp_path):
    place = tmp_path / "root"
    place.mkdir()
    archive = (tmp_path / "made" / CIFAR10.archive).read_bytes()
    (place / CIFAR10.archive).write_bytes(archive[: len(archive) // 2])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is damaged"):
        CIFAR10(root=str(place)).splits()
    assert list((place / "cifar10").iterdir()) == []


def test_unpacked_files_with_another_sum_are_not_read(published, tmp_path):
    (tmp_path / "made" / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({"data": 0, "labels": 0}))
    with pytest.raises(UserError, match="damaged"):
        CIFAR10(root=str(tmp_path / "made")).splits()


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_without_it_the_message_says_what_to_put_where(tmp_path, monkeypatch, kind, download):
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/")
    with pytest.raises(UserError) as caught:
        kind(root=str(tmp_path), download=download).splits()
    text = str(caught.value)
    assert f"http://127.0.0.1:9/{kind.archive}" in text
    assert str(tmp_path / kind.folder) in text
    assert ("cannot be downloaded" if download else "dataset.download is false") in text


def test_specs_need_no_files():
    assert CIFAR10.spec.image.shape == CIFAR100.spec.image.shape == (3, 32, 32)
    assert len(CIFAR10.spec.label.classes) == 10
    assert len(set(CIFAR100.spec.label.classes)) == 100
    assert CIFAR100.spec.label.classes == tuple(sorted(CIFAR100.spec.label.classes))
