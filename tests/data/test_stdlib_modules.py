import json

import pytest
import torch

from dlx.data.sentence_pairs import SentencePairsText
from dlx.data.stdlib import MODULES, modules, source
from dlx.data.stdlib_modules import StdlibModules


def test_lines_are_of_their_module_alone():
    dataset = StdlibModules(lines=50)
    samples = dataset.samples()["train"]
    assert len(samples) == 500
    assert len({text for text, *_ in samples}) == 500
    assert dataset.classes == tuple(sorted(MODULES))
    for text, label, _ in samples[::25]:
        assert 20 <= len(text) <= 100
        assert [name for name in MODULES if any(text == line.strip() for line in source(name).split("\n"))] == [label]
    assert samples == StdlibModules(lines=50).samples()["train"]
    assert samples != StdlibModules(lines=50, data_seed=1).samples()["train"]


@pytest.mark.parametrize("tokens", ["characters", "bytes", "wordpiece"])
def test_tokens_are_those_of_sentence_pairs(tokens, tmp_path):
    if tokens == "wordpiece":
        pytest.importorskip("tokenizers")
    settings = {"tokens": tokens, "root": tmp_path}
    assert StdlibModules(lines=10, **settings).spec.tokens == SentencePairsText(**settings).spec.tokens


def test_words_are_learned_from_modules_that_are_not_tested_on(tmp_path):
    words = StdlibModules(tokens="words", vocabulary=10**6, root=tmp_path).tokenizer.words
    others = " ".join(source(name) for name in modules() if name not in MODULES)
    assert set(words) <= set(others.split())


def test_texts_lie_between_marks():
    dataset = StdlibModules(lines=10)
    batch = dataset.splits()["train"].take(torch.arange(100))
    assert (batch["tokens"][:, 0] == 1).all()
    assert ((batch["tokens"] == 2).sum(1) == 1).all()


def test_a_toy_is_trained_on_it(dlx_call, here, toys):
    words = ["model=toy_language", "data=stdlib_modules", "data.lines=30", "trainer.max_steps=4", "--json"]
    call = dlx_call("train", *toys, *words)
    assert call.code == 0, call.err
    assert json.loads(call.out.splitlines()[-1])["metrics"]


def test_values_out_of_range_name_their_argument():
    with pytest.raises(ValueError, match=r"^lines "):
        StdlibModules(lines=9)
