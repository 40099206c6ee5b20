import pytest

from dlx.config.errors import UserError
from dlx.data.parallel_text import ParallelText
from dlx.tasks.tokenizer import Characters

PAIRS = [("Ein Haus", "A house"), ("Zwei Hunde", "Two dogs"), ("Drei", "Three of them"), ("Vier", "Four")]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "tsv").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    (tmp_path / "de").write_text("".join(f"{a}\n" for a, _ in PAIRS))
    (tmp_path / "en").write_text("".join(f"{b}\n" for _, b in PAIRS))
    return tmp_path


def test_two_files_and_two_columns_are_the_same(files):
    one = ParallelText(path=files / "tsv", tokens="characters")
    two = ParallelText(path=files / "de", target=files / "en", tokens="characters")
    assert one.pairs() == two.pairs()
    assert sorted(pair for pairs in one.pairs().values() for pair in pairs) == sorted(PAIRS)
    assert one.spec == two.spec
    assert set(one.fingerprint()["samples"]) == {"tsv"}
    assert set(two.fingerprint()["samples"]) == {"de", "en"}
    assert one.spec.source.vocabulary == one.spec.target.vocabulary


def test_long_pairs_are_left_out_and_counted(files):
    (files / "tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [*PAIRS, ("Fünf", "Five")] * 2))
    dataset = ParallelText(path=files / "tsv", tokens="characters", most=11)
    decode = dataset.tokenizers()[0].decode
    kept = {(decode(a), decode(b)) for sides in dataset.rows.values() for a, b in zip(*sides, strict=True)}
    assert kept == {PAIRS[0], PAIRS[1], PAIRS[3], ("Fünf", "Five")}
    assert dataset.notes() == ["2 of 10 pairs have more than 11 tokens and are left out"]
    assert ParallelText(path=files / "tsv", tokens="characters").notes() == []
    with pytest.raises(UserError, match=r"^dataset\.most: no pair of train"):
        _ = ParallelText(path=files / "tsv", tokens="characters", most=3).spec


def test_each_text_is_encoded_once(files, monkeypatch):
    read = []

    class Counted(Characters):
        def encode(self, text):
            read.append(text)
            return super().encode(text)

    monkeypatch.setattr("dlx.data.tokenizing.Characters", Counted)
    dataset = ParallelText(path=files / "tsv", tokens="characters", most=20)
    dataset.splits()
    dataset.notes()
    assert sorted(read) == sorted(text for pair in PAIRS for text in pair)


@pytest.mark.parametrize("tokens", ["characters", "words", "bytes", "bpe"])
def test_lower_case_is_the_tokenizers_own(files, tokens, tmp_path):
    if tokens == "bpe":
        pytest.importorskip("tokenizers")
    dataset = ParallelText(path=files / "tsv", tokens=tokens, lower=True, vocabulary=300, root=tmp_path)
    assert ("ein haus", "a house") in [pair for pairs in dataset.pairs().values() for pair in pairs]
    source = dataset.spec.source
    assert source.read("EIN hAUS").tolist() == source.read("ein haus").tolist()


def test_the_tokenizer_learns_from_no_pair_that_is_tested_on(files):
    (files / "many").write_text("".join(f"a{n}\tb{n}\n" for n in range(20)))
    for seed in range(3):
        dataset = ParallelText(path=files / "many", tokens="words", split_seed=seed)
        tested = {text for pair in dataset.pairs()["test"] for text in pair}
        assert len(tested) == 8
        assert not tested & set(dataset.tokenizers()[0].words)
        assert len(dataset.tokenizers()[0].words) == 32
    assert tested != {text for pair in ParallelText(path=files / "many").pairs()["test"] for text in pair}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\nalone\n", "line 2 must have 2 columns with a tab between, has 1"),
        ("a\tb\nc\t\n", "line 2 must have 2 columns with a tab between, has 1"),
        ("a\tb\tc\n", "line 1 must have 2 columns with a tab between, has 3"),
        ("a\tb\n", "1 pairs are too few to split"),
        ("", "the file is empty"),
    ],
)
def test_bad_columns_are_named(tmp_path, content, message):
    (tmp_path / "pairs.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        ParallelText(path=tmp_path / "pairs.tsv").pairs()


def test_files_that_do_not_belong_together_are_named(files):
    (files / "en").write_text("A house\nTwo dogs\nThree\n")
    with pytest.raises(UserError, match=r"de has 4 lines and .*en has 3"):
        ParallelText(path=files / "de", target=files / "en").pairs()
    (files / "en").write_text("A house\n\nThree\nFour\n")
    with pytest.raises(UserError, match=r"en: line 2 is empty, and that of the other side is not"):
        ParallelText(path=files / "de", target=files / "en").pairs()
    with pytest.raises(UserError, match=r"^dataset\.target: .*missing: cannot be read"):
        ParallelText(path=files / "de", target=files / "missing").pairs()


def test_bad_input_ends_with_2_and_writes_nothing(dlx_call, here, toys):
    (here / "one.tsv").write_text("one column\n" * 5)
    call = dlx_call("train", *toys, "model=toy_seq2seq", "data=parallel_text", "data.path=one.tsv")
    assert call.code == 2
    assert "one.tsv: line 1 must have 2 columns" in call.err
    assert not (here / "outputs").exists()
