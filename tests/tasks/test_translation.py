"""The head of an encoder-decoder, by hand: loss over padding, smoothing, exact match, BLEU; its pictures."""

import math

import pytest
import torch
from torch.testing import assert_close

from dlx.tasks.spec import Tokens, Translations
from dlx.tasks.tokenizer import Characters, Words
from dlx.tasks.translation import Translator, bleu

PAD, BEGIN, END = 0, 1, 2
WORDS = Words(["a", "b", "c"], first=3)  # tokens 3, 4, 5, and 6 for others
SOURCE = Tokens(vocabulary=7, length=3, pad=PAD, tokenizer=WORDS.to_json())
TARGET = Tokens(vocabulary=7, length=5, pad=PAD, begin=BEGIN, end=END, tokenizer=WORDS.to_json())
P = torch.tensor([0.05, 0.05, 0.3, 0.2, 0.2, 0.1, 0.1])


class Copies(Translator):
    """Writes the source, token after token, with certainty; `logits` replaces that where it is set."""

    logits = None
    encoded = 0  # times

    def __init__(self, *, spec=None, **more):
        super().__init__(spec=spec or Translations(source=SOURCE, target=TARGET), **more)

    def encode(self, source_BS):
        self.encoded += 1
        ended = torch.nn.functional.pad(source_BS, (0, 3), value=PAD)
        first = (ended != PAD).sum(1, keepdim=True)
        return {"text": ended.scatter(1, first, END), "at": torch.zeros(len(source_BS), dtype=torch.int64)}

    def decode(self, target_BL, memory, *, cached=False):
        if self.logits is not None:
            return self.logits.expand(*target_BL.shape, 7)
        at_BL = memory["at"].unsqueeze(1) + torch.arange(target_BL.shape[1])
        next_BL = memory["text"].gather(1, at_BL.clamp(max=memory["text"].shape[1] - 1))
        if cached:
            memory["at"] = memory["at"] + target_BL.shape[1]
        return torch.nn.functional.one_hot(next_BL, 7) * 50.0

    def attention(self, target_BL, memory):
        weights = torch.zeros(*target_BL.shape, memory["text"].shape[1] - 3)
        size = (memory["text"] == END).int().argmax(1)
        for n, last in enumerate(size.tolist()):
            for step in range(target_BL.shape[1]):
                weights[n, step, min(step, last - 1)] = 1
        return weights


BATCH = {
    "source": torch.tensor([[3, 4, 5], [3, PAD, PAD]]),
    "target": torch.tensor([[BEGIN, 3, 4, 5, END], [BEGIN, 4, END, PAD, PAD]]),
    "index": torch.arange(2),
}


def attention(system, target_BL):
    return system.attention(target_BL, system.encode(BATCH["source"]))


def test_loss_is_the_mean_over_target_tokens_that_are_no_padding():
    system = Copies()
    output = P.log().expand(2, 4, 7)
    expected = -(math.log(0.2) * 3 + math.log(0.1) + math.log(0.3) * 2) / 6
    assert system.target.loss(output, BATCH).item() == pytest.approx(expected)
    changed = output.clone()
    changed[1, 2:] = torch.randn(2, 7)
    assert system.target.loss(changed, BATCH).item() == pytest.approx(expected)


def test_label_smoothing_is_of_the_training_alone():
    system, output = Copies(label_smoothing=0.1), P.log().expand(2, 4, 7)
    plain = Copies().target.loss(output, BATCH).item()
    assert system.target.loss(output, BATCH).item() == pytest.approx(0.9 * plain - 0.1 * P.log().mean().item())
    assert system.target.metrics(system.target.statistics(output, BATCH))["loss"] == pytest.approx(plain)


def test_weights_multiply_the_losses_of_a_text():
    found = Copies().target.loss(P.log().expand(2, 4, 7), {**BATCH, "weight": torch.tensor([0.0, 2.0])}).item()
    assert found == pytest.approx(-2 * (math.log(0.2) + math.log(0.3)) / 6)


def test_exact_match_is_of_what_it_writes_and_not_of_what_it_is_given():
    system = Copies()
    found = system.metrics(system.evaluate(BATCH))
    assert found["exact_match"] == 0.5  # the second target is another text
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert system.generate(BATCH["source"]).tolist() == [[BEGIN, 3, 4, 5, END], [BEGIN, 3, END, PAD, PAD]]


def test_texts_of_other_widths_are_the_same_but_for_padding():
    head = Copies().target
    made = torch.tensor([[BEGIN, 3, END], [BEGIN, 3, 4]])
    target = torch.tensor([[BEGIN, 3, END, PAD, PAD], [BEGIN, 3, 4, END, PAD]])
    assert head.equal(made, target).tolist() == [True, False]


def test_a_batch_of_inputs_alone_is_answered():
    system = Copies()
    predicted = system.predict({"source": BATCH["source"]})
    assert predicted["target"].shape == (2, 5)
    one, two = system.answer({"source": BATCH["source"]}, predicted)
    assert (one.line, two.json) == ("a b c", {"text": "a"})
    assert system.predict({"source": BATCH["source"]}).keys() == {"target", "attention"}


def test_an_answer_and_a_showcase_encode_their_sources_once():
    system = Copies()
    system.predict({"source": BATCH["source"]})
    assert system.encoded == 1
    system.target.showcase(torch.empty(0), BATCH)
    assert system.encoded == 2


def test_bleu_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    made = ["the cat sat on the mat .", "a man is riding a horse"]
    true = ["the cat sat on a mat .", "a man rides a brown horse"]
    assert bleu(list(zip(made, true, strict=True))) == sacrebleu.corpus_bleu(made, [true]).score
    assert bleu([(text, text) for text in true]) == pytest.approx(100)
    assert math.isnan(bleu([]))


def test_bleu_is_of_all_texts_of_a_split_together():
    pytest.importorskip("sacrebleu")
    system = Copies(bleu=True)
    assert system.monitor == ("val/bleu", "max")
    statistics = system.evaluate(BATCH)
    assert statistics["texts"] == [("a b c", "a b c"), ("a", "b")]
    assert system.metrics(statistics)["bleu"] == bleu(statistics["texts"])


def test_the_map_shows_the_source_across_and_what_was_written_down():
    figure = Copies().target.draw_attention(
        attention(Copies(), BATCH["target"][:, :-1])[1], BATCH["source"][1], BATCH["target"][1], "a"
    )
    (axes,) = figure.axes[:1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "<end>"]
    assert axes.images[0].get_array().shape == (2, 1)


def test_spaces_and_new_lines_are_seen():
    letters = Characters("ab \n", first=3)
    tokens = Tokens(vocabulary=7, length=5, pad=PAD, begin=BEGIN, end=END, tokenizer=letters.to_json())
    head = Copies(spec=Translations(source=tokens, target=tokens)).target
    assert head._pieces(tokens, torch.tensor([BEGIN, 3, 5, 6, END, PAD])) == ["<begin>", "a", "·", "⏎", "<end>"]


def test_the_showcase_begins_with_texts_that_are_wrong():
    system = Copies()
    media = system.showcase(BATCH)
    assert media["translations"].rows == [("a", "a", "b"), ("a b c", "a b c", "a b c")]
    assert media["attention"].axes


def test_targets_need_marks():
    with pytest.raises(ValueError, match="targets with the marks begin, end and pad"):
        Copies(spec=Translations(source=SOURCE, target=SOURCE))


def test_attention_rows_sum_to_one():
    weights = attention(Copies(), BATCH["target"])
    assert_close(weights.sum(-1), torch.ones(2, 5))
