import hashlib
import os
from pathlib import Path

import pytest

from dlx.config.errors import UserError
from dlx.data.tinyshakespeare import TinyShakespeare

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n" * 50


@pytest.fixture
def published(monkeypatch):
    monkeypatch.setattr(TinyShakespeare, "md5", hashlib.md5(TEXT.encode()).hexdigest())
    monkeypatch.setattr(TinyShakespeare, "url", "http://127.0.0.1:9/")  # nobody answers there


def test_a_download_is_kept(published, tmp_path, monkeypatch, serve):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "input.txt").write_text(TEXT)
    monkeypatch.setattr(TinyShakespeare, "url", serve(tmp_path / "server"))
    assert TinyShakespeare(root=tmp_path / "root").texts() == {"text": TEXT}
    assert TinyShakespeare(root=tmp_path / "root", download=False).texts() == {"text": TEXT}


def test_what_is_missing_or_another_text_is_said(published, tmp_path):
    with pytest.raises(UserError, match=r"cannot be downloaded[\s\S]*dataset\.path="):
        TinyShakespeare(root=tmp_path).texts()
    with pytest.raises(UserError, match=r"download is false"):
        TinyShakespeare(root=tmp_path, download=False).texts()
    (tmp_path / "other").write_text("To be")
    with pytest.raises(UserError, match=r"other: damaged, or not the published text"):
        TinyShakespeare(path=tmp_path / "other").texts()


def test_the_published_text():
    path = Path(os.environ.get("DLX_TEST_DATA", "")) / "tinyshakespeare.txt"
    if not os.environ.get("DLX_TEST_DATA") or not path.is_file():
        pytest.skip("DLX_TEST_DATA has no tinyshakespeare.txt")
    dataset = TinyShakespeare(path=path)
    assert dataset.spec.tokens.vocabulary == 65
    assert {name: len(stream) for name, stream in dataset.streams.items()} == {
        "train": 1115394 - 2 * 55769, "val": 55769, "test": 55769,
    }  # fmt: skip
