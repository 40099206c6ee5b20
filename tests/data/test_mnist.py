import gzip
import hashlib
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx.config.errors import UserError
from dlx.data.mnist import MNIST, FashionMNIST, Idx, read_idx


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def published(monkeypatch):
    """A dataset of 12 + 4 small images in place of the published one; its unpacked files by name."""
    rng = np.random.default_rng(0)
    contents = {
        "train-images-idx3-ubyte": idx(rng.integers(0, 256, (12, 28, 28))),
        "train-labels-idx1-ubyte": idx(rng.integers(0, 10, 12)),
        "t10k-images-idx3-ubyte": idx(rng.integers(0, 256, (4, 28, 28))),
        "t10k-labels-idx1-ubyte": idx(rng.integers(0, 10, 4)),
    }
    files = tuple(Idx(name, md5(gzip.compress(c, mtime=0)), md5(c)) for name, c in contents.items())
    for kind in (MNIST, FashionMNIST):
        monkeypatch.setattr(kind, "files", files)
        monkeypatch.setattr(kind, "search_dirs", ())
        monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/")  # nobody answers there
    return contents


def put(contents, folder, packed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)


def check(dataset, contents):
    splits = dataset.splits()
    assert set(splits) == {"train", "test"}
    for split, name, size in (("train", "train", 12), ("test", "t10k", 4)):
        tensors = splits[split].tensors
        assert (tensors["image"].shape, tensors["image"].dtype) == ((size, 1, 28, 28), torch.uint8)
        assert tensors["image"].numpy().tobytes() == contents[f"{name}-images-idx3-ubyte"][16:]
        assert tensors["label"].dtype == torch.int64
        assert tensors["label"].tolist() == list(contents[f"{name}-labels-idx1-ubyte"][8:])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folder", ["", "mnist"])
def test_files_are_found_packed_or_not(published, tmp_path, packed, folder):
    put(published, tmp_path / folder, packed)
    check(MNIST(root=str(tmp_path), download=False), published)


def test_files_packed_anew_are_the_same_data(published, tmp_path):
    for name, content in published.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1, mtime=1))
    check(MNIST(root=str(tmp_path), download=False), published)


def test_the_environment_names_the_root(published, tmp_path, monkeypatch):
    put(published, tmp_path / "fashion_mnist", packed=True)
    monkeypatch.setenv("DLX_DATA", str(tmp_path))
    check(FashionMNIST(download=False), published)


def test_further_directories_are_searched(published, tmp_path, monkeypatch):
    put(published, tmp_path / "distribution", packed=True)
    monkeypatch.setattr(FashionMNIST, "search_dirs", (str(tmp_path / "distribution"),))
    check(FashionMNIST(root=str(tmp_path / "empty"), download=False), published)


def test_a_download_is_kept_whole(published, tmp_path, monkeypatch, serve):
    put(published, tmp_path / "server", packed=True)
    monkeypatch.setattr(MNIST, "url", serve(tmp_path / "server"))
    check(MNIST(root=str(tmp_path / "root")), published)
    names = sorted(path.name for path in (tmp_path / "root" / "mnist").iterdir())
    assert names == sorted(f"{name}.gz" for name in published)


def test_a_wrong_download_is_not_kept(published, tmp_path, monkeypatch, serve):
    put(published, tmp_path / "server", packed=True)
    (tmp_path / "server" / "train-images-idx3-ubyte.gz").write_bytes(b"cut off")
    monkeypatch.setattr(MNIST, "url", serve(tmp_path / "server"))
    with pytest.raises(UserError, match="cannot be downloaded"):
        MNIST(root=str(tmp_path / "root")).splits()
    assert list((tmp_path / "root" / "mnist").iterdir()) == []


def test_an_answer_that_is_no_http_is_a_failed_download(published, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"Please log in\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(MNIST, "url", f"http://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(UserError, match=r"cannot be downloaded.*BadStatusLine"):
            MNIST(root=str(tmp_path)).splits()
    assert list((tmp_path / "mnist").iterdir()) == []


def test_without_a_network_the_message_says_what_to_put_where(published, tmp_path):
    with pytest.raises(UserError) as caught:
        MNIST(root=str(tmp_path)).splits()
    text = str(caught.value)
    assert str(tmp_path / "mnist") in text
    assert all(f"{name}.gz" in text for name in published)
    assert MNIST.url in text
    assert "dataset.root" in text


def test_nothing_is_downloaded_where_it_is_not_wanted(published, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.download is false"):
        MNIST(root=str(tmp_path), download=False).splits()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b"", lambda c: b"x"]
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_files_are_named(published, tmp_path, damage, packed):
    put(published, tmp_path, packed)
    path = tmp_path / ("t10k-images-idx3-ubyte" + ".gz" * packed)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte"):
        MNIST(root=str(tmp_path)).splits()


def test_an_unwritable_root_is_named(published, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"^dataset\.root: .*file"):
        MNIST(root=str(tmp_path / "file")).splits()


def test_specs_need_no_files():
    assert MNIST.spec.image.shape == (1, 28, 28)
    assert FashionMNIST.spec.label.classes[9] == "Ankle boot"
    assert len(FashionMNIST.spec.label.classes) == len(MNIST.spec.label.classes) == 10


def test_fashion_mnist_itself():
    file = FashionMNIST.files[2]
    places = [Path(place) for place in (*FashionMNIST.search_dirs, os.environ.get("DLX_DATA", "."))]
    found = [place / f"{file.name}.gz" for place in places if (place / f"{file.name}.gz").is_file()]
    if not found:
        pytest.skip("Fashion-MNIST is not installed (Debian: dataset-fashion-mnist)")
    image = read_idx(found[0], file.unpacked)
    assert image.shape == (10_000, 28, 28)
    assert (image / 255).mean() == pytest.approx(0.2868, abs=1e-4)
