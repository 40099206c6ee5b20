import pytest
import torch

from dlx.config import compose
from dlx.config.errors import UserError
from dlx.data.sentence_pairs import SentencePairsText
from dlx.training.prepare import prepare

TEXT = "\n\n".join("\n".join(f"document {d} line {n}" for n in range(4)) for d in range(40))


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    return SentencePairsText(path=tmp_path / "text", length=48)


def parts(dataset, batch):
    """(A, B) of each row, read apart by hand."""
    found = []
    for tokens, segment in zip(batch["tokens"].tolist(), batch["segment"].tolist(), strict=True):
        assert tokens[0] == 1
        first = tokens.index(2)
        second = tokens.index(2, first + 1)
        assert not any(tokens[second + 1 :])
        assert segment == [0] * (first + 1) + [1] * (second - first) + [0] * (len(tokens) - second - 1)
        decode = dataset.tokenizer.decode
        found.append((decode(tokens[1:first]), decode(tokens[first + 1 : second])))
    return found


def test_a_pair_follows_or_not_as_its_label_says(dataset):
    lines = [line for lines in dataset.documents for line in lines]
    source = dataset.splits()["train"]
    assert len(source) == 36 * 3
    batch = source.take(torch.arange(len(source)), 5)
    for (a, b), follows in zip(parts(dataset, batch), batch["follows"].tolist(), strict=True):
        after = lines[lines.index(a) + 1]
        assert (b == after) == bool(follows)
        assert after.split()[1] == a.split()[1]
        assert int(b.split()[1]) < 36


def test_half_follow():
    dataset = SentencePairsText()
    source = dataset.splits()["train"]
    assert source.take(torch.arange(len(source)))["follows"].float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_training_draws_anew_and_evaluation_does_not(dataset):
    splits, index = dataset.splits(), torch.arange(6)
    first, other = (splits["train"].take(torch.arange(108), draw)["tokens"] for draw in (1, 2))
    assert not torch.equal(first, other)
    assert torch.equal(first[7:9], splits["train"].take(torch.tensor([7, 8]), 1)["tokens"])
    for name in ("val", "test"):
        assert torch.equal(splits[name].take(index, 1)["tokens"], splits[name].take(index, 2)["tokens"])


def test_long_lines_are_cut_to_half(dataset):
    source = SentencePairsText(path=dataset.path, length=21).splits()["train"]
    batch = source.take(torch.arange(len(source)), 0)
    assert all(len(a) == len(b) == 9 for a, b in parts(dataset, batch))


def test_words_are_learned_from_the_training_documents_alone(dataset):
    words = SentencePairsText(path=dataset.path, tokens="words").tokenizer.words
    assert "35" in words
    assert not {"36", "37", "38", "39"} & set(words)


def test_labels_that_are_drawn_with_the_pairs_are_not_said_to_be_missing(dataset):
    words = ["model=bert", "data=sentence_pairs", f"data.path={dataset.path}", "data.length=48"]
    assert not [note for note in prepare(compose(words)).notes if "has no sample" in note]


def test_too_few_documents_are_refused(tmp_path):
    (tmp_path / "text").write_text("one\n\ntwo\n")
    with pytest.raises(UserError, match="0 documents of two lines or more"):
        SentencePairsText(path=tmp_path / "text").splits()
    with pytest.raises(ValueError, match=r"^length "):
        SentencePairsText(length=7)
