import pytest
import torch

from dlx.config import build, build_shared, compose
from dlx.config.errors import UserError
from dlx.data.labeled_text import LabeledText

CSV = 'label,text\ngood,"fine, really"\nbad,awful\ngood,nice\nbad,"so\nso"\n'


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text(CSV)
    return path


def folders(root, **texts):
    for name, content in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(content)
    return root


def test_a_table(table):
    dataset = LabeledText(path=table, length=12)
    spec, source = dataset.spec, dataset.splits()["train"]
    assert spec.label.classes == ("bad", "good")
    assert spec.tokens.marks == (0, 1, 2, 3)
    batch = source.take(torch.arange(4))
    assert batch["label"].tolist() == [1, 0, 1, 0]
    assert spec.tokens.draw(batch["tokens"].long()) == ["fine, real", "awful", "nice", "so\nso"]
    assert source.lengths["tokens"].tolist() == [12, 7, 6, 7]
    assert batch["tokens"][1].tolist() == [*spec.tokens.read("awful")[0].tolist(), *[0] * 5]
    assert dataset.notes() == ["1 of 4 texts are longer than 12 tokens and are cut"]
    assert list(dataset.fingerprint()["samples"]) == ["texts.csv"]


def test_folders(tmp_path):
    path = folders(tmp_path / "a", good__1="fine", good__2="nice", bad__1="awful", bad__2="poor")
    source = LabeledText(path=path).splits()["train"]
    assert source.keys == ["bad/1.txt", "bad/2.txt", "good/1.txt", "good/2.txt"]
    given = {f"{split}__{label}__{n}": f"{split} {n}" for split in ("train", "test") for label in "ab" for n in (1, 2)}
    dataset = LabeledText(path=folders(tmp_path / "b", **given))
    assert {name: len(source) for name, source in dataset.splits().items()} == {"train": 4, "test": 4}
    assert "test: a/1.txt" in dataset.fingerprint()["samples"]


@pytest.mark.parametrize("kind", ["table", "folders"])
@pytest.mark.parametrize("split_seed", [0, 3])
def test_the_tokenizer_learns_from_no_text_that_is_tested_on(kind, split_seed, tmp_path):
    if kind == "table":
        path = tmp_path / "texts.csv"
        path.write_text("text,label\n" + "".join(f"word{n},{'ab'[n % 2]}\n" for n in range(40)))
    else:
        path = folders(tmp_path / "texts", **{f"{'ab'[n % 2]}__{n}": f"word{n}" for n in range(40)})
    config = compose(
        ["model=lstm", "data=labeled_text", f"data.path={path}", "data.tokens=words", f"data.split_seed={split_seed}"]
    )
    dataset = build(config, "dataset")
    test = build_shared(config, "dataset").split(dataset)["test"]
    unknown = dataset.tokenizer.size - 1
    assert len(dataset.tokenizer.words) == 40 - len(test)
    assert (test.source.take(test.index)["tokens"][:, 1] == unknown).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,class\na,b\n", r"must have the columns text and label, has text, class \(without label\)"),
        ("text,label\na,b\nc\n", "line 3 has 1 columns, the first has 2"),
        ("text,label\na,b\n,b\n", "line 3 has no text"),
        ("text,label\na,\n", "line 2 has no label"),
        ('text,label\n"a,b\n', "is no CSV"),
        ("text,label\n", "holds no texts"),
        ("text,label\na,b\nc,b\n", "has one class only, b"),
        ("text,label\na,b\nc,b\nd,e\n", "class e has one text, where at least 2 are needed"),
        ("", "the file is empty"),
    ],
)
def test_bad_tables_are_named(tmp_path, content, message):
    path = tmp_path / "texts.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        _ = LabeledText(path=path).spec


def test_bad_folders_are_named(tmp_path):
    (tmp_path / "empty" / "good").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train has no class folders with \.txt files"):
        _ = LabeledText(path=tmp_path / "empty").spec
    tested = folders(tmp_path / "tested", test__a__1="x", test__b__1="y")
    with pytest.raises(UserError, match="has no train folder"):
        _ = LabeledText(path=tested).spec
    given = {"train__a__1": "x", "train__a__2": "x", "train__b__1": "y", "train__b__2": "y", "test__c__1": "z"}
    with pytest.raises(UserError, match="test has a class that train has not, c"):
        _ = LabeledText(path=folders(tmp_path / "other", **given)).spec


def test_bad_input_ends_with_2_and_writes_nothing(dlx_call, here, toys):
    (here / "texts.csv").write_text("text\nalone\n")
    call = dlx_call("train", *toys, "model=toy_sentence", "data=labeled_text", "data.path=texts.csv")
    assert call.code == 2
    assert "must have the columns text and label" in call.err
    assert not (here / "outputs").exists()


def test_a_text_that_the_run_cannot_read_is_refused_and_nothing_is_written(dlx_call, here, toys):
    (here / "texts.csv").write_text("text,label\n" + "".join(f"{'ab'[n % 2]} word,{'ab'[n % 2]}\n" for n in range(40)))
    words = ["data=labeled_text", "data.path=texts.csv", "data.length=10", "data.batch_size=8", "trainer.max_steps=2"]
    call = dlx_call("train", *toys, "model=toy_language", *words, "name=run")
    assert call.code == 0, call.err
    (run,) = (here / "outputs/run").iterdir()
    before = sorted(run.rglob("*"))
    for text, why in (
        ("a word a word", "'a word a word': has 15 tokens; at most 10 are read"),
        ("a wörd", "'a wörd': characters that the vocabulary lacks: 'ö'"),
    ):
        refused = dlx_call("predict", "run", "--text", text)
        assert (refused.code, refused.err.splitlines()) == (2, [f"error: {why}"])
    assert sorted(run.rglob("*")) == before
