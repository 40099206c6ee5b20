"""Markov: counts against a count in plain Python, the two ways to learn it, padding, texts shorter than the context."""

import math
from collections import Counter
from itertools import product

import pytest
import torch

from dlx.models.sequence.markov import Markov
from dlx.tasks.spec import Streams, Tokens

TEXT = "how much wood would a woodchuck chuck if a woodchuck could chuck wood " * 3


def windows(length=15):
    letters = sorted(set(TEXT))
    stream = torch.tensor([letters.index(letter) for letter in TEXT])
    return Streams(tokens=Tokens(vocabulary=len(letters), length=length)), stream.unfold(0, length, length - 1)


def entropy(rows, order, smoothing, vocabulary):
    """Nats a token of the smoothed counts on the tokens that they were counted on, by dictionaries."""
    given = max(1, order)
    pairs = [(tuple(row[t - order : t]), row[t]) for row in rows.tolist() for t in range(given, len(row))]
    both, contexts = Counter(pairs), Counter(context for context, _ in pairs)
    total = sum(
        -count * math.log((count + smoothing) / (contexts[context] + smoothing * vocabulary))
        for (context, _), count in both.items()
    )
    return total / len(pairs)


@pytest.mark.parametrize(("order", "smoothing"), [*product(range(4), (1.0, 0.1, 1e-9))])
def test_the_loss_is_the_empirical_entropy_with_smoothing(order, smoothing, training):
    spec, tokens = windows()
    model = Markov(spec=spec, order=order, smoothing=smoothing)
    assert model.objectives() == []
    model.fit(training({"tokens": tokens[:8]}, {"tokens": tokens[8:]}))
    found = model.metrics(model.evaluate({"tokens": tokens}))
    assert found["loss"] == pytest.approx(entropy(tokens, order, smoothing, spec.tokens.vocabulary), rel=1e-5)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_by_gradient_it_goes_to_the_counts(order, training):
    spec, tokens = windows()
    counted, learned = Markov(spec=spec, order=order, smoothing=1e-9), Markov(spec=spec, order=order, by="gradient")
    counted.fit(training({"tokens": tokens}))
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.3)
    (objective,) = learned.objectives()
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 600)
        loss, _ = learned.training_loss({"tokens": tokens}, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(counted.metrics(counted.evaluate({"tokens": tokens}))["loss"], abs=1e-3)
    seen = counted.table.sum(1) > 0
    expected = counted.table[seen] / counted.table[seen].sum(1, keepdim=True)
    torch.testing.assert_close(learned.table[seen].softmax(1), expected, atol=1e-3, rtol=0)
    learned.fit(training())  # nothing to do


def test_padding_is_not_counted_and_weights_are(training):
    spec = Streams(tokens=Tokens(vocabulary=4, length=5, pad=0))
    tokens = torch.tensor([[1, 2, 3, 0, 0], [1, 3, 3, 3, 0]])
    model = Markov(spec=spec)
    model.fit(training({"tokens": tokens, "weight": torch.tensor([1.0, 2.0])}))
    expected = torch.zeros(4, 4)
    expected[1, 2] = expected[2, 3] = 1
    expected[1, 3], expected[3, 3] = 2, 4
    assert torch.equal(model.table, expected)


def test_after_fewer_tokens_than_the_order_it_is_the_model_of_lower_order(training):
    spec, tokens = windows()
    models = [Markov(spec=spec, order=order) for order in range(4)]
    for model in models:
        model.fit(training({"tokens": tokens}))
    prompt = torch.tensor([[3, 5]])
    third = models[3]
    of_pair = third.next_logits(prompt, None).softmax(-1)
    counts = torch.zeros(spec.tokens.vocabulary)
    for row in tokens.tolist():  # pairs that the third order counted have a token before them
        for t in range(3, len(row)):
            if row[t - 2 : t] == [3, 5]:
                counts[row[t]] += 1
    torch.testing.assert_close(of_pair[0], (counts + 1) / (counts + 1).sum())


@pytest.mark.parametrize("by", ["counts", "gradient"])
@pytest.mark.parametrize("order", range(4))
def test_the_same_text_with_a_cache_and_without(order, by, training):
    spec, tokens = windows()
    model = Markov(spec=spec, order=order, by=by)
    model.fit(training({"tokens": tokens}))
    made = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        *_, last = model.sample(3, length=40, use_cache=use_cache)
        made.append(last["tokens"])
    assert torch.equal(*made)


def test_only_the_last_tokens_count(training):
    spec, tokens = windows()
    model = Markov(spec=spec, order=2)
    model.fit(training({"tokens": tokens}))
    one, other = tokens[:1].clone(), tokens[:1].clone()
    other[:, 4] = (other[:, 4] + 1) % spec.tokens.vocabulary
    differs = (model(one) != model(other)).any(-1)[0]
    assert set(differs.nonzero()[:, 0].tolist()) <= {4, 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": -1}, "order must be at least 0, got -1"),
        ({"order": 10}, "order must be below 10, the steps of the data's sequences, got 10"),
        (
            {"order": 4},
            "order must leave at most 134,217,728 entries of the table, got 4: 100 tokens .* 10,000,000,000",
        ),
        ({"smoothing": 0.0}, "smoothing must be above 0, .* got 0"),
        ({"by": "hand"}, "by must be counts or gradient, got 'hand'"),
        ({"loss": "mse"}, "loss must be cross_entropy for tokens"),
    ],
)
def test_wrong_arguments_are_said(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        Markov(spec=Streams(tokens=Tokens(vocabulary=100, length=10)), **arguments)
