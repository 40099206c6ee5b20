"""The head of a tagger, by hand: positions that do not count, weights, what it answers."""

import math

import pytest
import torch

from dlx.tasks.spec import TaggedTokens, TokenLabels, Tokens
from dlx.tasks.tagging import Tagging
from dlx.tasks.tokenizer import Words

WORDS = Words(["the", "cat", "sat"], first=1)
SPEC = TaggedTokens(
    tokens=Tokens(vocabulary=WORDS.size, length=4, pad=0, tokenizer=WORDS.to_json()),
    labels=TokenLabels(classes=("article", "noun", "verb"), length=4),
)
HEAD = Tagging(SPEC, "tokens", "labels")
BATCH = {
    "tokens": torch.tensor([[1, 2, 3, 0], [2, 3, 0, 0]]),
    "labels": torch.tensor([[0, 1, 2, -100], [1, 2, -100, -100]]),
}
# All of the first text is right, of the second text one of two.
CHOSEN = torch.tensor([[0, 1, 2, 1], [1, 1, 0, 0]])
LOGITS = torch.nn.functional.one_hot(CHOSEN, 3) * math.log(4.0)  # probabilities 4/6, 1/6, 1/6
RIGHT, WRONG = -math.log(4 / 6), -math.log(1 / 6)


def test_loss_and_metrics_are_over_tokens_that_count():
    expected = (4 * RIGHT + WRONG) / 5
    assert HEAD.loss(LOGITS, BATCH).item() == pytest.approx(expected)
    found = HEAD.metrics(HEAD.statistics(LOGITS, BATCH))
    assert found == {"loss": pytest.approx(expected), "accuracy": 0.8, "exact_match": 0.5}
    assert HEAD.logs(LOGITS, BATCH)["accuracy"].item() == pytest.approx(0.8)


def test_what_stands_at_ignored_positions_changes_nothing():
    changed = LOGITS.clone()
    changed[0, 3], changed[1, 2:] = torch.randn(3), torch.randn(2, 3)
    assert HEAD.loss(changed, BATCH) == HEAD.loss(LOGITS, BATCH)
    assert HEAD.metrics(HEAD.statistics(changed, BATCH)) == HEAD.metrics(HEAD.statistics(LOGITS, BATCH))


def test_weights_multiply_the_losses_of_a_text():
    weighted = HEAD.loss(LOGITS, {**BATCH, "weight": torch.tensor([0.0, 3.0])}).item()
    assert weighted == pytest.approx(3 * (RIGHT + WRONG) / 5)


def test_a_batch_without_a_label_has_no_loss():
    assert HEAD.loss(LOGITS, {**BATCH, "labels": torch.full((2, 4), -100)}).item() == 0


def test_an_answer_names_each_token_that_is_text_and_its_class():
    one, two = HEAD.answer(None, BATCH, HEAD.predict(LOGITS, BATCH))
    assert one.line == "the/article cat/noun sat/verb"
    assert two.json == {"tokens": ["cat", "sat"], "labels": ["noun", "noun"]}


def test_the_showcase_begins_with_the_texts_that_are_wrong():
    table = HEAD.showcase(LOGITS, BATCH)["predictions"]
    assert table.rows[0] == ("cat sat", "noun noun", "noun verb")
    assert table.rows[1] == ("the cat sat", "article noun verb", "article noun verb")
