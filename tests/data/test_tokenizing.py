import hashlib
import json
import subprocess
import sys

import pytest

from dlx.config.errors import UserError
from dlx.data.tokenizing import check_tokens, make_tokenizer, train
from dlx.tasks.tokenizer import load_tokenizer

TEXTS = ["the cat sat on the mat\n" * 20, "a dog and a frog [PAD] sat\n" * 20]
KINDS = ("characters", "bytes", "words", "bpe", "wordpiece")


@pytest.fixture
def make(tmp_path):
    def make(kind, **settings):
        if kind in ("bpe", "wordpiece"):
            pytest.importorskip("tokenizers")
        return make_tokenizer(kind, TEXTS, root=tmp_path, **{"vocabulary": 300, **settings})

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [0, 4])
def test_texts_come_back_and_hold_no_marks(make, kind, first):
    tokenizer = make(kind, first=first)
    text = "the frog sat on a cat"
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert first <= min(tokens)
    assert max(tokens) < tokenizer.size
    assert len(tokenizer.byte_lengths()) == tokenizer.size
    again = load_tokenizer(tokenizer.to_json())
    assert (again.encode(text), again.first, again.size) == (tokens, first, tokenizer.size)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_mark_that_is_written_in_a_text_is_text(make, kind):
    tokenizer = make(kind, first=4)
    assert min(tokenizer.encode("a [PAD] [MASK] dog [SEP]")) >= 4


def test_bytes_of_subwords_tell_every_text(make):
    text = "Ünï\ncode \U0001f600\ttabs  and  spaces"
    tokenizer = make("bpe", first=3)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    lengths = tokenizer.byte_lengths()
    assert sum(lengths[token] for token in tokens) == len(text.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_lower_case_is_the_tokenizers_own(make, kind):
    tokenizer = make(kind, lower=True)
    assert tokenizer.encode("The CAT") == tokenizer.encode("the cat")
    assert load_tokenizer(tokenizer.to_json()).encode("The CAT") == tokenizer.encode("the cat")
    if kind in ("bytes", "words", "bpe"):
        assert make(kind).encode("The CAT") != make(kind).encode("the cat")


def test_a_file_of_the_library_reads_in_lower_case_where_that_is_asked_for(make, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.loads(make("bpe").to_json())["content"])
    assert make_tokenizer(str(path), (), lower=True).encode("The CAT") == make("bpe").encode("the cat")


def test_words_are_the_most_frequent(make):
    tokenizer = make("words", vocabulary=4)
    assert tokenizer.words == ["a", "sat", "the"]
    assert tokenizer.encode("the cat") == [2, 3]


def test_it_is_trained_once(make, tmp_path, monkeypatch):
    before = make("bpe", first=2).to_json()
    (kept,) = (tmp_path / "tokenizers").iterdir()
    assert json.loads(kept.read_text())["added_tokens"] == []

    def never(*settings):
        raise AssertionError

    monkeypatch.setattr("dlx.data.tokenizing.train", never)
    assert make("bpe", first=2).to_json() == before
    with pytest.raises(AssertionError):
        make("bpe", first=3)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_training_gives_the_same_in_any_process(kind):
    pytest.importorskip("tokenizers")
    code = (
        "import hashlib; from dlx.data.tokenizing import train; "
        f"print(hashlib.sha256(train({kind!r}, {TEXTS!r}, 290, 4).encode()).hexdigest())"
    )
    here = hashlib.sha256(train(kind, TEXTS, 290, 4).encode()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there


def test_a_file_of_the_library_is_read(make, tmp_path):
    bpe = make("bpe", first=3)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.loads(bpe.to_json())["content"])
    assert make_tokenizer(str(path), (), first=3).encode("the cat") == bpe.encode("the cat")
    with pytest.raises(UserError, match=r"tokenizer\.json: its first tokens must be the marks \[PAD\] \[CLS\]"):
        make_tokenizer(str(path), (), first=4)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"dataset\.tokens: .*tokenizer\.json"):
        make_tokenizer(str(path), ())
    with pytest.raises(UserError, match="cannot be read"):
        make_tokenizer(str(tmp_path / "missing.json"), ())


def test_settings_that_no_tokenizer_has_name_their_argument():
    with pytest.raises(ValueError, match=r"^tokens must be"):
        check_tokens("syllables", 100)
    with pytest.raises(ValueError, match=r"^vocabulary must be at least 260 "):
        check_tokens("bpe", 259, 4)
