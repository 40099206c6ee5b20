import sys
from types import SimpleNamespace

import pytest

from dlx.config.errors import UserError
from dlx.data.wikitext import WikiText


@pytest.fixture
def library(monkeypatch):
    """In place of the datasets library: what it was asked for, and three splits."""
    asked = []

    def load_dataset(repository, name, *, cache_dir, download_config):
        asked.append((repository, name, download_config.local_files_only))
        if download_config.local_files_only:
            raise FileNotFoundError("not there\nand more")
        return {split: {"text": [f" = {split} = \n", "some words\n" * 40]} for split in ("train", "validation", "test")}

    module = SimpleNamespace(load_dataset=load_dataset, DownloadConfig=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("dlx.data.wikitext.require", lambda *names: None)
    return asked


def test_the_published_splits(library, tmp_path):
    dataset = WikiText(tokens="characters", length=16, root=tmp_path)
    assert set(dataset.splits()) == {"train", "val", "test"}
    assert dataset.texts()["val"].startswith(" = validation = \nsome words\n")
    WikiText(size=103, root=tmp_path).texts()
    assert {name for _, name, _ in library} == {"wikitext-2-raw-v1", "wikitext-103-raw-v1"}


def test_a_failure_is_one_line(library, tmp_path):
    with pytest.raises(UserError, match=r"^dataset wikitext: cannot be downloaded \(not there\)$"):
        WikiText(download=False, root=tmp_path).texts()
    with pytest.raises(ValueError, match=r"^size must be 2 or 103"):
        WikiText(size=3)
