import json

import pytest
import torch

from dlx.config.errors import UserError
from dlx.data.loader import make_loader
from dlx.data.splits import SplitSettings
from dlx.data.text import TextStream, decode, encode_stream, pad_rows, read_text, smallest
from dlx.runs.folder import RunFolder
from dlx.tasks.tokenizer import Bytes, Characters


class Letters(TextStream):
    def texts(self):
        return {"text": "".join(chr(97 + n * n % 26) for n in range(2000))}


@pytest.mark.parametrize(("vocabulary", "dtype"), [(256, "uint8"), (257, "int16"), (32768, "int16"), (32769, "int32")])
def test_a_stream_is_kept_in_the_smallest_dtype(vocabulary, dtype):
    assert smallest(vocabulary) == getattr(torch, dtype)
    assert torch.tensor([vocabulary - 1]).to(smallest(vocabulary)).item() == vocabulary - 1


@pytest.mark.parametrize(
    "tokenizer",
    [
        Characters("abcé\n"),
        Characters("\nabcé", 3),
        Characters("\nabcé", lower=True),
        Bytes(),
        Bytes(2),
        Bytes(lower=True),
    ],
)
def test_a_long_text_is_encoded_as_the_tokenizer_says(tokenizer):
    text = ("ABC\ncbÉ" if tokenizer.lower else "abc\ncbé") * 5
    assert encode_stream(tokenizer, text).tolist() == tokenizer.encode(text)


def test_a_character_that_the_alphabet_lacks_is_named():
    with pytest.raises(UserError, match="'d'"):
        encode_stream(Characters("abc"), "abcd")


def test_each_token_is_predicted_once_and_no_window_crosses_a_split():
    dataset = Letters(length=16)
    text = dataset.texts()["text"]
    splits, parts = dataset.splits(), {"train": text[:1800], "val": text[1800:1900], "test": text[1900:]}
    for name, part in parts.items():
        windows = splits[name].take(torch.arange(len(splits[name])))["tokens"]
        assert windows.dtype == torch.uint8
        predicted = dataset.tokenizer.decode(windows[:, 1:].flatten().tolist())
        assert predicted == part[1 : len(predicted) + 1]
        assert len(part) - len(predicted) <= 15


def test_words_are_learned_from_the_training_text_alone():
    class Rising(TextStream):
        def texts(self):
            return {"text": " ".join(map(str, range(1000)))}

    dataset = Rising(tokens="words", length=8)
    assert "0" in dataset.tokenizer.words
    assert "999" not in dataset.tokenizer.words
    unknown = dataset.tokenizer.size - 1
    assert (dataset.streams["test"][1:] == unknown).all()
    assert not (dataset.streams["train"][:-1] == unknown).any()


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_give_int64(workers):
    dataset = Letters(length=16)
    settings = SplitSettings(batch_size=4, workers=workers)
    train = settings.split(dataset)["train"]
    loader = make_loader(train, dataset.spec.entries, settings, device=torch.device("cpu"))
    batch = next(loader.epoch(0))
    assert (batch["tokens"].dtype, tuple(batch["tokens"].shape)) == (torch.int64, (4, 16))


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(UserError, match=r"dataset\.length: a window of 101 tokens .* 100 tokens of the val split"):
        Letters(length=101).splits()


def test_files_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"good \xff bad")
    with pytest.raises(UserError, match=r"dataset\.path: .*text: not UTF-8 \(byte 5 is 0xff\)"):
        read_text(path)
    path.write_bytes(b" \n")
    with pytest.raises(UserError, match="the file is empty"):
        read_text(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path)
    assert decode("\ufeffa\r\nb".encode(), path) == "a\nb"


def test_rows_are_filled_up():
    rows, lengths = pad_rows([[5, 6], [7, 8, 9]], 300, 4)
    assert rows.tolist() == [[5, 6, 0, 0], [7, 8, 9, 0]]
    assert lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=text_file", "data.path=empty"], "empty: the file is empty"),
        (["data=text_file", "data.path=bad"], "bad: not UTF-8 (byte 1 is 0xfe)"),
        (["data=text_file", "data.path=short"], "dataset.length: a window of 128 tokens is longer than"),
        (["data=text_file", "data.path=missing"], "missing: cannot be read"),
        (["data=text_file", "data.path=short", "data.length=1"], "dataset.length: must be at least 2"),
        (["data=text_file", "data.path=short", "data.tokens=syllables"], "dataset.tokens: must be"),
    ],
)
def test_bad_texts_are_one_line_and_nothing_is_written(words, message, dlx_call, here, toys):
    (here / "empty").write_bytes(b"")
    (here / "bad").write_bytes(b"a\xfe")
    (here / "short").write_text("a short text of few")
    call = dlx_call("train", *toys, "model=toy_language", *words)
    assert call.code == 2
    assert message in call.err
    assert "Traceback" not in call.err
    assert not (here / "outputs").exists()


def test_a_model_learns_a_file_and_knows_it_again(dlx_call, here, toys):
    (here / "words.txt").write_text("one two three four five six seven eight nine ten\n" * 60)
    words = ["data=text_file", "data.path=words.txt", "data.length=16", "trainer.max_steps=60", "optim.lr=0.05"]
    call = dlx_call("train", *toys, "model=toy_language", *words, "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out.splitlines()[-1])
    assert found["metrics"]["test/loss"] < 1.5  # 2.77 is that of a guess among its 16 characters
    (here / "words.txt").write_text("one two three four five six seven eight nine ten\n" * 59 + "ten\n")
    changed = dlx_call("eval", found["run"])
    assert changed.code == 0
    assert "words.txt" in changed.err


@pytest.mark.parametrize("tokens", ["characters", "words"])
def test_other_texts_are_read_in_the_tokens_of_the_run(tokens, dlx_call, here, toys):
    """A text of fewer letters or words has an alphabet of its own, in which each number means another letter."""
    (here / "all.txt").write_text("zero one two three four five six seven eight nine ten " * 60)
    (here / "few.txt").write_text("three four five six seven eight nine ten " * 70)
    (here / "more.txt").write_text("three FOUR " * 300)
    words = ["data=text_file", "data.path=all.txt", f"data.tokens={tokens}", "data.length=8", "trainer.max_steps=80"]
    call = dlx_call("train", *toys, "model=toy_language", *words, "optim.lr=0.05", "--json")
    assert call.code == 0, call.err
    run = json.loads(call.out.splitlines()[-1])["run"]
    few = dlx_call("eval", run, "data.path=few.txt", "--json")
    assert few.code == 0, few.err
    assert json.loads(few.out)["metrics"]["test/loss"] < 2.0  # in an alphabet of its own 5 and more
    other = dlx_call("eval", run, "data.tokens=bytes")
    assert other.code == 2
    assert f"dataset.tokens: must stay {tokens}: " in other.err
    forked = dlx_call("resume", run, "--fork", "data.path=few.txt", "trainer.max_steps=1", "--json")
    assert forked.code == 0, forked.err
    assert RunFolder(json.loads(forked.out)["run"]).spec_texts() == RunFolder(run).spec_texts()
    more = dlx_call("eval", run, "data.path=more.txt")
    assert (more.code, "that the vocabulary lacks: 'F' 'O' 'R' 'U'" in more.err) == (
        (2, True) if tokens == "characters" else (0, False)
    )
