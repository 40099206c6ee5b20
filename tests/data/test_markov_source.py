import math

import pytest
import torch

from dlx.data.markov_source import MarkovSource


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_stationary_distribution_stays_and_gives_the_entropy(order):
    source = MarkovSource(order=order, symbols=4)
    table_SV, p_S = source.table, source.stationary
    assert torch.allclose(table_SV.sum(1), torch.ones(len(table_SV), dtype=torch.float64), atol=1e-12)
    assert p_S.sum().item() == pytest.approx(1)
    after_S = torch.zeros_like(p_S)
    expected = 0.0
    for state in range(len(p_S)):
        for letter in range(4):
            share = float(p_S[state] * table_SV[state, letter])
            after_S[(state * 4 + letter) % len(p_S)] += share
            expected -= share * math.log(table_SV[state, letter])
    assert torch.allclose(after_S, p_S, atol=1e-10)
    assert source.entropy == pytest.approx(expected)
    assert source.entropy < math.log(4)


def test_order_1_is_the_left_eigenvector():
    source = MarkovSource(symbols=5)
    values, vectors = torch.linalg.eig(source.table.T)
    found = vectors[:, values.real.argmax()].real
    assert torch.allclose(found / found.sum(), source.stationary, atol=1e-10)


def test_letters_follow_the_table():
    source = MarkovSource(order=2, symbols=3, size=200_000)
    stream = source.splits()["train"].stream.long()
    counts = torch.zeros(9, 3).index_put_(
        (stream[:-2] * 3 + stream[1:-1], stream[2:]), torch.ones(len(stream) - 2), accumulate=True
    )
    assert torch.allclose(counts.sum(1).double() / counts.sum(), source.stationary, atol=0.01)
    assert torch.allclose(counts.double() / counts.sum(1, keepdim=True), source.table, atol=0.03)
    surprise = -source.table[stream[:-2] * 3 + stream[1:-1], stream[2:]].log().mean()
    assert surprise.item() == pytest.approx(source.entropy, abs=0.01)


def test_what_remains_between_two_neighbours():
    source = MarkovSource(symbols=3)
    t, p = source.table, source.stationary
    expected = 0.0
    for a in range(3):
        for c in range(3):
            joint = [float(p[a] * t[a, b] * t[b, c]) for b in range(3)]
            expected -= sum(share * math.log(share / sum(joint)) for share in joint)
    assert source.entropy_between == pytest.approx(expected)
    assert source.entropy_between < source.entropy
    with pytest.raises(ValueError, match=r"^order must be 1"):
        _ = MarkovSource(order=2).entropy_between


def test_marks_come_first():
    plain, marked = MarkovSource(size=1000), MarkovSource(size=1000, marks=True)
    assert marked.spec.tokens.marks == (0, 1, 2, 3)
    assert (plain.spec.tokens.vocabulary, marked.spec.tokens.vocabulary) == (8, 12)
    assert torch.equal(plain.splits()["train"].stream + 4, marked.splits()["train"].stream)


def test_data_seed_draws_the_table_and_the_letters():
    def stream(**settings):
        return MarkovSource(size=1000, **settings).splits()["train"].stream

    assert torch.equal(stream(), stream())
    assert not torch.equal(stream(), stream(data_seed=1))
    splits = MarkovSource(size=1000).splits()
    assert not torch.equal(splits["val"].stream, splits["test"].stream)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"order": -1}, "order"), ({"order": 9}, "order"), ({"symbols": 1}, "symbols"), ({"symbols": 60}, "symbols"),
     ({"concentration": 0}, "concentration"), ({"size": 100}, "size"), ({"length": 1}, "length")],
)  # fmt: skip
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} "):
        MarkovSource(**given)
