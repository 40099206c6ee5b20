import torch

from dlx.data.stdlib import ALPHABET, modules, plain, source
from dlx.data.stdlib_text import StdlibText


def test_the_alphabet_is_fixed():
    assert len(ALPHABET) == 96
    assert plain("a\tb é\r\n") == "a   b \n"
    dataset = StdlibText(size=5000, length=32)
    assert dataset.spec.tokens.vocabulary == 96
    assert set(dataset.texts()["text"]) <= set(ALPHABET)


def test_it_is_the_beginning_of_the_modules_in_their_order():
    names = list(modules())
    assert names == sorted(names)
    assert "argparse" in names
    assert not {name for name in names if name.startswith("_")} | {"test"} & set(names)
    text = StdlibText(size=2000).texts()["text"]
    assert len(text) == 2000
    assert source(names[0]).startswith(text[:500])


def test_windows_are_text():
    dataset = StdlibText(size=5000, length=32)
    first = dataset.splits()["train"].take(torch.tensor([0]))["tokens"]
    assert dataset.spec.tokens.draw(first.long()) == [dataset.texts()["text"][:32]]
