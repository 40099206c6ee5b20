import gzip
import hashlib
import os
from pathlib import Path

import pytest

from dlx.config.errors import UserError
from dlx.data.multi30k import Multi30k


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A small dataset in place of the published one, in a folder."""
    folder = tmp_path / "published"
    folder.mkdir()
    sums = {}
    for name in Multi30k.files:
        text = "".join(f"{name} Zeile {n}\n" for n in range(5))
        content = gzip.compress(text.encode(), mtime=0)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(Multi30k, "files", sums)
    monkeypatch.setattr(Multi30k, "url", "http://127.0.0.1:9/")
    return folder


def test_a_directory_is_read_in_both_directions(published):
    pairs = Multi30k(path=published, tokens="characters").pairs()
    assert set(pairs) == {"train", "val", "test"}
    assert pairs["train"][1] == ("train.de.gz zeile 1", "train.en.gz zeile 1")
    back = Multi30k(path=published, tokens="characters", direction="en-de", lower=False).pairs()
    assert back["test"][0] == ("test_2016_flickr.en.gz Zeile 0", "test_2016_flickr.de.gz Zeile 0")


def test_unpacked_files_are_read(published):
    for path in list(published.iterdir()):
        (published / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(Multi30k(path=published, tokens="characters").pairs()["val"]) == 5


def test_a_download_is_kept(published, tmp_path, monkeypatch, serve):
    monkeypatch.setattr(Multi30k, "url", serve(published))
    assert len(Multi30k(tokens="characters", root=tmp_path / "root").pairs()["train"]) == 5
    assert len(list((tmp_path / "root" / "multi30k").iterdir())) == 6


def test_what_is_missing_is_said(published, tmp_path):
    with pytest.raises(UserError, match=r"download is false[\s\S]*dataset\.path="):
        Multi30k(root=tmp_path, download=False).pairs()
    (published / "val.en.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"val\.en\.gz: cannot be read"):
        Multi30k(path=published).pairs()
    (published / "val.en.gz").unlink()
    with pytest.raises(UserError, match=r"has no val\.en\.gz, nor val\.en$"):
        Multi30k(path=published).pairs()
    with pytest.raises(ValueError, match=r"^direction must be"):
        Multi30k(direction="fr-en")


def test_the_published_text():
    folder = Path(os.environ.get("DLX_TEST_DATA", "")) / "multi30k"
    if not os.environ.get("DLX_TEST_DATA") or not folder.is_dir():
        pytest.skip("DLX_TEST_DATA has no multi30k")
    for name, md5 in Multi30k.files.items():
        assert hashlib.md5((folder / name).read_bytes()).hexdigest() == md5
    pairs = Multi30k(path=folder, tokens="characters").pairs()
    assert {name: len(part) for name, part in pairs.items()} == {"train": 29000, "val": 1014, "test": 1000}
    assert pairs["test"][0][1] == "a man in an orange hat starring at something."
