"""The head of a language model, by hand: uniform logits, padding, weights, bytes, surprisal."""

import math

import pytest
import torch
from torch.testing import assert_close

from dlx.tasks.language import COLUMNS, NextToken, draw_surprisal
from dlx.tasks.spec import Tokens
from dlx.tasks.tokenizer import Characters, Words

LETTERS = Characters("abc\n", first=1)
TEXTS = Tokens(vocabulary=5, length=4, pad=0, tokenizer=LETTERS.to_json())


def head(tokens=TEXTS, given=1):
    return NextToken(tokens, "tokens", given)


def logits_of(probabilities):
    """The same at each position, [2, 4, 5]."""
    return torch.tensor(probabilities).log().expand(2, 4, 5)


BATCH = {"tokens": torch.tensor([[1, 2, 2, 3], [1, 3, 0, 0]])}
P = [0.1, 0.2, 0.4, 0.25, 0.05]


def test_loss_is_the_mean_over_tokens_that_are_no_padding():
    expected = -(2 * math.log(0.4) + 2 * math.log(0.25)) / 4
    assert head().loss(logits_of(P), BATCH).item() == pytest.approx(expected)
    assert head().loss(logits_of([0.2] * 5), BATCH).item() == pytest.approx(math.log(5))


def test_what_stands_at_padding_changes_nothing():
    logits = logits_of(P).clone()
    changed = logits.clone()
    changed[1, 1:] = torch.randn(3, 5)
    changed[0, 3] = torch.randn(5)
    one, other = (head().loss(x, BATCH) for x in (logits, changed))
    assert one == other
    assert head().metrics(head().statistics(logits, BATCH)) == head().metrics(head().statistics(changed, BATCH))


def test_weights_multiply_the_losses_of_a_text():
    weighted = head().loss(logits_of(P), {**BATCH, "weight": torch.tensor([2.0, 0.0])}).item()
    assert weighted == pytest.approx(2 * -(2 * math.log(0.4) + math.log(0.25)) / 4)
    ones = head().loss(logits_of(P), {**BATCH, "weight": torch.ones(2)}).item()
    assert ones == pytest.approx(head().loss(logits_of(P), BATCH).item())
    stream = Tokens(vocabulary=5, length=4)
    batch = {"tokens": torch.tensor([[1, 2, 2, 3], [1, 3, 2, 2]])}
    plain = head(stream).loss(logits_of(P), batch).item()
    assert head(stream).loss(logits_of(P), {**batch, "weight": torch.ones(2)}).item() == pytest.approx(plain)


def test_perplexity_and_bits_per_byte():
    tokens = Tokens(vocabulary=4, length=4, pad=0, tokenizer=Words(["ab", "é"], first=1).to_json())
    batch = {"tokens": torch.tensor([[1, 2, 1, 3]])}  # é, ab, unknown: 3 bytes with a space, 3, 2
    found = head(tokens).metrics(head(tokens).statistics(torch.zeros(1, 4, 4), batch))
    assert found["loss"] == pytest.approx(math.log(4))
    assert found["perplexity"] == pytest.approx(4)
    assert found["bits_per_byte"] == pytest.approx(3 * 2 / (3 + 3 + 2))
    assert "bits_per_byte" not in head(Tokens(vocabulary=4, length=4)).metric_names


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    logits = torch.randn(2, 4, 5)
    whole = head().statistics(logits, BATCH)
    parts = [head().statistics(logits[n : n + 1], {"tokens": BATCH["tokens"][n : n + 1]}) for n in range(2)]
    assert_close({key: parts[0][key] + parts[1][key] for key in whole}, whole)


def test_tokens_that_are_given_are_not_predicted():
    found = head(given=3).statistics(logits_of(P), BATCH)
    assert int(found["count"]) == 1
    assert float(found["loss"]) == pytest.approx(-math.log(0.25))
    with pytest.raises(ValueError, match="longer than the 4 tokens that are given, got 4"):
        head(given=4)


def test_surprisal_is_in_bits_of_each_token_and_what_may_come_next():
    predicted = head().predict(logits_of([0.125, 0.125, 0.5, 0.125, 0.125]), BATCH)
    assert_close(predicted["surprisal"], torch.tensor([[0.0, 1, 1, 3], [0, 3, 0, 0]]))
    assert_close(predicted["next"], torch.tensor([[0.125, 0.125, 0.5, 0.125, 0.125]] * 2))
    one, two = head().answer(None, BATCH, predicted)
    assert one.json["tokens"] == ["a", "b", "b", "c"]
    assert two.json["tokens"] == ["a", "c"]
    assert two.json["surprisal"] == [0.0, 3.0]
    assert one.line.startswith("1.667 bits a token; next 'b' 50.0%")


def test_a_picture_shows_spaces_and_new_lines_and_cuts_nothing_off():
    letters = "if x:\n\treturn é\n" * 2
    figure = draw_surprisal(list(letters), [float(n % 9) for n in range(len(letters))])
    axes = figure.axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert shown.count("⏎") == 4
    assert shown.count("·") == 4  # a space
    assert shown.count("→") == 2  # a tab
    rows = {round(text.get_position()[1] - 0.5) for text in axes.texts}
    assert rows == {0, 1, 2, 3}
    assert axes.get_ylim()[0] == 4  # no empty line at the end
    long = draw_surprisal(["word"] * 50, [1.0] * 50).axes[0]
    assert max(text.get_position()[0] for text in long.texts) < COLUMNS
    wide = draw_surprisal(["x" * 200], [1.0]).axes[0]
    assert max(text.get_position()[0] for text in wide.texts) < COLUMNS
