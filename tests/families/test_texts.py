"""What a person sees of texts: one that is written as it comes, answers to texts and to lines of a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from dlx.cli import sample
from dlx.tasks.sequence import SequenceModel

STEPS = ("trainer.max_steps=4", "trainer.threads=1")


def trained(call, *words: str) -> Path:
    told = call("train", *words, *STEPS, "--json")
    assert told.code == 0, told.err
    return Path(json.loads(told.out.splitlines()[-1])["run"])


@pytest.fixture
def parts(monkeypatch):
    """What is printed without a new line after it."""
    found: list[str] = []
    echo = typer.echo

    def watch(text="", nl=True, err=False, **more):
        if not nl:
            found.append(text)
        echo(text, nl=nl, err=err, **more)

    monkeypatch.setattr(sample.typer, "echo", watch)
    return found


def test_one_text_is_printed_as_it_is_written(call, parts):
    run = trained(call, "model=toy_language")
    made = call("sample", str(run), "--prompt", "abc", "--given", "length=6")
    assert made.code == 0, made.err
    assert re.fullmatch(r"abc[a-h]{3,6}\n", made.out)  # two of the toy's tokens stand for nothing
    assert len(parts) == 6
    assert parts[0] == made.out[:4]
    assert "".join(parts) + "\n" == made.out
    assert call("sample", str(run), "--prompt", "abc", "--given", "length=6").out == made.out


def test_several_texts_are_printed_at_the_end_with_a_line_between(call, parts):
    run = trained(call, "model=toy_language")
    made = call("sample", str(run), "--prompt", "abc", "--given", "length=6", "-n", "3")
    texts = made.out.removesuffix("\n").split("\n----\n")
    assert len(texts) == 3
    assert all(re.fullmatch("abc[a-h]{2,6}", text) for text in texts)
    assert parts == []


def test_json_has_the_final_texts_alone(call):
    run = trained(call, "model=toy_language")
    made = call("sample", str(run), "--given", "length=6", "--json")
    (text,) = json.loads(made.out)["texts"]["tokens"]
    assert len(text) == 7
    assert text in made.err
    beams = call("sample", str(run), "--given", "length=6", "--given", "beam=3", "--json")
    assert len(json.loads(beams.out)["texts"]["tokens"]) == 1


@pytest.mark.parametrize(
    ("states", "printed", "whole"),
    [
        (["a", "ab", "abc"], ["a", "b", "c"], "abc\n"),
        (["caf", "caf\ufffd", "café"], ["caf", "", "é"], "café\n"),  # half a letter waits
        (["ab", "ab\ufffd"], ["ab", ""], "ab\ufffd\n"),  # one that stays half
        (["play", "pla ying", "pla ying on"], ["play"], "play\npla ying on\n"),  # it does not go on: at the end
    ],
)
def test_a_text_only_grows(states, printed, whole, parts, capsys):
    stream = sample.Stream(json=False)
    for state in states:
        stream.grow(state)
    stream.end(states[-1])
    assert parts == printed
    assert capsys.readouterr().out == whole


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--prompt", "abz!"], "'abz!': characters that the vocabulary lacks: '!' 'z'"),
        (["--prompt", "a" * 10], "'aaaaaaaaaa': has 10 tokens; at most 9 are read"),
        (["--prompt", ""], "'': holds no tokens"),
        (["--prompt", "~nobody/x"], "characters that the vocabulary lacks"),
        (["--prompt", "a" * 5000], "has 5000 tokens; at most 9 are read"),
        (["--given", "temperature=-1"], "--given temperature must be at least 0, got -1.0"),
        (["--given", "top_p=0"], "--given top_p must be in (0, 1], got 0.0"),
        (["--given", "top_k=0"], "--given top_k must be at least 1, got 0"),
        (["--given", "beam=0"], "--given beam must be at least 1, got 0"),
    ],
)
def test_bad_words_are_one_line(words, text, call):
    run = trained(call, "model=toy_language")
    before = sorted(run.rglob("*"))
    refused = call("sample", str(run), *words)
    assert refused.code == 2, refused.out
    assert sorted(run.rglob("*")) == before
    assert text in refused.err
    assert len(refused.err.splitlines()) == 1
    assert refused.out == ""


def test_a_model_of_labels_makes_no_texts(call):
    run = trained(call, "model=toy_language", "data=sentences")
    refused = call("sample", str(run))
    assert refused.code == 2
    assert "makes nothing on these data; dlx predict answers them" in refused.err


def test_texts_on_the_command_line_and_lines_of_a_file(call):
    run = trained(call, "model=toy_seq2seq", "model.attends=true")
    made = call("predict", str(run), "--text", "abc", "--text", "hg", "--json")
    assert made.code == 0, made.err
    told = json.loads(made.out)["predictions"]
    assert [one["file"] for one in told] == ["abc", "hg"]
    assert all(Path(one["picture"]).exists() for one in told)
    Path("words.txt").write_text("abc\n\nhgf\n")
    told = json.loads(call("predict", str(run), "words.txt", "--json", "--no-pictures").out)["predictions"]
    assert [(one["file"], one["line"], one["input"]) for one in told] == [
        ("words.txt", 1, "abc"),
        ("words.txt", 3, "hgf"),
    ]
    assert all("picture" not in one for one in told)
    shown = call("predict", str(run), "words.txt").out
    assert re.search(r"^words.txt:3: ", shown, re.MULTILINE)


def test_a_file_of_many_lines_has_few_pictures_unless_asked_for(call):
    run = trained(call, "model=toy_seq2seq", "model.attends=true")
    Path("words.txt").write_text("abc\n" * 9)
    few, all_ = (
        json.loads(call("predict", str(run), "words.txt", "--json", *more).out)["predictions"]
        for more in ((), ("--pictures",))
    )
    assert [sum("picture" in one for one in told) for told in (few, all_)] == [4, 9]
    assert [one["text"] for one in few] == [one["text"] for one in all_]


def test_a_language_model_reads_a_file_as_one_text(call):
    run = trained(call, "model=toy_language")
    Path("text.txt").write_text("abcd\n")
    (told,) = json.loads(call("predict", str(run), "text.txt", "--json").out)["predictions"]
    assert told["tokens"] == list("abcd")
    assert told["surprisal"][0] == 0
    Path("text.txt").write_text("abcd\nbc\n")
    two = json.loads(call("predict", str(run), "text.txt", "--lines", "--json").out)["predictions"]
    assert [one["tokens"] for one in two] == [list("abcd"), list("bc")]


def test_a_line_that_cannot_be_read_ends_no_batch(call):
    run = trained(call, "model=toy_seq2seq")
    Path("words.txt").write_text("abc\nxyz\n")
    made = call("predict", str(run), "words.txt", "--json")
    assert made.code == 5
    assert len(json.loads(made.out)["predictions"]) == 1
    assert "warning: words.txt:2: 'xyz': characters that the vocabulary lacks: 'x' 'y' 'z'" in made.err


@pytest.mark.parametrize(
    ("content", "words", "text"),
    [
        (b"\xff\xfe", ["words.txt"], "words.txt: no text that can be read"),
        (b"\n\n", ["words.txt"], "words.txt: holds no text"),
        (b"", [], "dlx predict: nothing is given; --text TEXT or files that the run reads"),
        (b"", ["--text", "abcdefgh"], "'abcdefgh': has 8 tokens; at most 7 are read"),
        (b"", ["--text", ""], "'': holds no tokens"),
        (b"", ["--text", "xy"], "'xy': characters that the vocabulary lacks: 'x' 'y'"),
        (b"", ["abc"], "no such file: abc (a text is given by --text)"),
        (b"", ["~nobody/x"], "no such file: ~nobody/x (a text is given by --text)"),
    ],
)
def test_bad_texts_are_one_line(content, words, text, call):
    run = trained(call, "model=toy_seq2seq")
    Path("words.txt").write_bytes(content)
    before = sorted(run.rglob("*"))
    refused = call("predict", str(run), *words)
    assert refused.code == 2, refused.out
    assert text in refused.err
    assert len(refused.err.splitlines()) == 1
    assert sorted(run.rglob("*")) == before


def test_a_system_of_images_reads_no_texts(call):
    run = trained(call, "model=linear")
    refused = call("predict", str(run), "--text", "seven")
    assert refused.code == 2
    assert "--text: Linear reads no texts; it reads image" in refused.err


def test_a_cache_gives_the_same_text(call, monkeypatch):
    run = trained(call, "model=toy_language")
    caches = []
    own = SequenceModel.next_logits
    monkeypatch.setattr(
        SequenceModel, "next_logits", lambda self, tokens, cache: caches.append(cache) or own(self, tokens, cache)
    )
    with_, without = (
        call("sample", str(run), "--given", "length=20", "--given", f"use_cache={word}").out
        for word in ("true", "false")
    )
    assert with_ == without
    assert caches[0] is not None
    assert caches[-1] is None
