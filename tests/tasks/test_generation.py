"""Generation against brute force on tiny vocabularies: what sampling keeps, what beam search finds."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dlx.tasks.generation import beam_search, check_sampling, choose, filtered, generate, length_penalty, without_marks
from dlx.tasks.spec import Tokens

PAD, END, V = 0, 1, 4
rows = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=9)


class Table:
    """Logits that depend on the last two tokens; it counts the tokens that it reads. context: it looks no further."""

    def __init__(self, vocabulary=V, seed=0, scale=2.0):
        self.logits = scale * torch.randn(vocabulary, vocabulary, vocabulary, generator=torch.manual_seed(seed))
        self.read = 0

    def __call__(self, tokens, cache):
        self.read += tokens.shape[1]
        if cache is None:
            cache = {}
        before = cache["last"] if "last" in cache else torch.zeros(len(tokens), dtype=torch.int64)
        two = torch.cat([before.view(-1, 1), tokens], 1)[:, -2:]
        cache["last"] = tokens[:, -1]
        logits = self.logits[two[:, 0], two[:, 1]].clone()
        logits[:, PAD] = -torch.inf
        return logits

    def log_p(self, tokens, start):
        """Of the tokens after the first `start`."""
        total = 0.0
        for n in range(start, len(tokens)):
            two = ([0, *tokens[:n]])[-2:]
            logits = self.logits[two[0], two[1]].clone()
            logits[PAD] = -torch.inf
            total += logits.log_softmax(-1)[tokens[n]].item()
        return total


@given(rows, st.integers(1, 9))
def test_top_k_keeps_the_k_most_probable(row, k):
    logits = torch.tensor([row])
    kept = filtered(logits, top_k=k)[0].isfinite()
    least = sorted(row, reverse=True)[min(k, len(row)) - 1]
    assert kept.tolist() == [value >= least for value in logits[0].tolist()]


@given(rows, st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_that_reach_p(row, p):
    logits = torch.tensor([row])
    probability = logits[0].softmax(-1)
    kept = filtered(logits, top_p=p)[0].isfinite()
    assert probability[kept].max() == probability.max()  # of equal ones, either
    total = probability[kept].sum().item()
    assert total >= p - 1e-5
    if kept.sum() > 1 and p < 1:
        assert total - probability[kept].min().item() < p + 1e-5  # one fewer would not reach it
    assert probability[kept].min() >= (probability[~kept].max() if (~kept).any() else 0)


def test_the_rows_of_a_batch_are_filtered_apart():
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    assert filtered(logits, top_k=1).isfinite().tolist() == [[False, False, True], [True, False, False]]
    assert filtered(logits, top_p=0.5).isfinite().tolist() == [[False, False, True], [True, False, False]]


def test_choose_draws_from_the_softmax_over_the_temperature():
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.7]])).expand(20_000, 3)
    torch.manual_seed(0)
    for temperature, expected in ((1.0, [0.1, 0.2, 0.7]), (0.5, [0.01 / 0.54, 0.04 / 0.54, 0.49 / 0.54])):
        share = torch.bincount(choose(logits, temperature), minlength=3) / 20_000
        assert_close(share, torch.tensor(expected), atol=0.015, rtol=0)
    assert choose(logits, 0.0).unique().tolist() == [2]
    assert choose(logits, 5.0, top_k=2).unique().tolist() == [1, 2]


def test_marks_that_no_text_holds_are_never_next():
    tokens = Tokens(vocabulary=5, length=4, pad=0, begin=1, end=2, mask=3)
    assert without_marks(torch.zeros(1, 5), tokens).isfinite().tolist() == [[False, False, True, False, True]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"beam": 0}, "beam must be at least 1"),
        ({"length": 0}, "length must be at least 1"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check_sampling(**{"temperature": 1.0, "top_k": None, "top_p": None, **arguments})


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_search(seed):
    start = torch.tensor([[2], [3]])
    *_, greedy = generate(Table(seed=seed), start, 6, end=END, pad=PAD, temperature=0)
    made, score = beam_search(Table(seed=seed), start, 6, beam=1, end=END, pad=PAD)
    assert torch.equal(made, greedy)
    for row, own in zip(made.tolist(), score.tolist(), strict=True):
        count = row.index(END) if END in row else len(row) - 1
        expected = Table(seed=seed).log_p(row[: count + 1], 1) / length_penalty(torch.tensor(float(count)), 0.6).item()
        assert own == pytest.approx(expected, abs=1e-5)


def hypotheses(steps):
    """All texts after the start that end, or have so many tokens."""
    for n in range(1, steps + 1):
        for letters in itertools.product((2, 3), repeat=n - 1):
            yield (*letters, END)
    yield from itertools.product((2, 3), repeat=steps)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_holds_all_finds_the_best_of_all(seed, alpha):
    """Two letters and `end`, four steps: 31 hypotheses."""
    table, steps = Table(seed=seed), 4

    def score(new):
        return table.log_p([2, *new], 1) / ((5 + len(new)) / 6) ** alpha

    best = max(hypotheses(steps), key=score)
    made, found = beam_search(Table(seed=seed), torch.tensor([[2]]), steps, beam=40, end=END, pad=PAD, alpha=alpha)
    assert tuple(token for token in made[0, 1:].tolist() if token != PAD) == best
    assert found.item() == pytest.approx(score(best), abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_a_wider_beam_of_all_is_never_worse_than_greedy(seed):
    start = torch.tensor([[2], [3], [2]])
    _, greedy = beam_search(Table(seed=seed), start, 5, beam=1, end=END, pad=PAD)
    _, wide = beam_search(Table(seed=seed), start, 5, beam=64, end=END, pad=PAD)
    assert (wide >= greedy - 1e-6).all()


def test_rows_do_not_change_each_other():
    start = torch.tensor([[2], [3]])
    both, score = beam_search(Table(), start, 6, beam=3, end=END, pad=PAD)
    for n in range(2):
        alone, own = beam_search(Table(), start[n : n + 1], 6, beam=3, end=END, pad=PAD)
        assert torch.equal(torch.nn.functional.pad(alone, (0, both.shape[1] - alone.shape[1])), both[n : n + 1])
        assert own.item() == pytest.approx(score[n].item(), abs=1e-6)


def test_a_longer_text_pays_less_where_the_penalty_is_stronger():
    assert length_penalty(torch.tensor([1.0, 7.0]), 0.0).tolist() == [1, 1]
    assert length_penalty(torch.tensor([1.0, 7.0]), 1.0).tolist() == [1, 2]
    logits = torch.full((V, V, V), -math.inf)
    logits[..., END], logits[..., 2] = math.log(0.45), math.log(0.55)
    table = Table()
    table.logits = logits
    short, _ = beam_search(table, torch.tensor([[2]]), 3, beam=8, end=END, pad=PAD, alpha=0.0)
    long, _ = beam_search(table, torch.tensor([[2]]), 3, beam=8, end=END, pad=PAD, alpha=5.0)
    assert short[0].tolist() == [2, END, PAD, PAD]
    assert long[0].tolist() == [2, 2, 2, 2]


def test_after_its_end_a_row_is_padding():
    torch.manual_seed(0)
    *_, made = generate(Table(scale=0.5), torch.full((64, 1), 2), 12, end=END, pad=PAD)
    for row in made.tolist():
        if END in row:
            assert set(row[row.index(END) + 1 :]) <= {PAD}
        assert PAD not in row[: row.index(END)] if END in row else PAD not in row


def test_it_stops_where_all_rows_have_ended():
    logits = torch.zeros(V, V, V)
    logits[..., END] = 50
    table = Table()
    table.logits = logits
    assert len(list(generate(table, torch.tensor([[2], [3]]), 30, end=END, pad=PAD))) == 1


class Context:
    """A model of limited context: the logits depend on a sum over all tokens that it reads, so that what is forgotten
    shows. With a cache it keeps the sum."""

    def __init__(self, limit):
        self.limit, self.longest, self.read = limit, 0, 0

    def __call__(self, tokens, cache):
        position = 0
        total = torch.zeros(len(tokens), dtype=torch.int64)
        if cache:
            position, total = cache["count"][0].item(), cache["total"]
        place = torch.arange(position, position + tokens.shape[1]) + 1
        total = total + (tokens * place).sum(1)
        self.longest = max(self.longest, position + tokens.shape[1])
        self.read += tokens.shape[1]
        if cache is not None:
            cache |= {"count": torch.full((len(tokens),), position + tokens.shape[1]), "total": total}
        return -((torch.arange(7) - total.unsqueeze(1) % 7).abs().float())


@pytest.mark.parametrize("prompt", [1, 5, 9, 14])
def test_a_full_context_is_forgotten_by_halves_with_and_without_a_cache(prompt):
    start = torch.randint(1, 7, (3, prompt), generator=torch.manual_seed(0))
    found = {}
    for use_cache in (True, False):
        model = Context(8)
        *_, made = generate(model, start, 40, context=8, temperature=0, use_cache=use_cache)
        assert model.longest <= 8
        found[use_cache] = made, model.read
    assert torch.equal(found[True][0], found[False][0])
    assert found[True][0].shape == (3, prompt + 40)
    assert torch.equal(found[True][0][:, :prompt], start)
    assert found[True][1] < found[False][1] / 2  # the cache spares reading


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100))
def test_a_seed_draws_the_same_with_and_without_a_cache(seed):
    def made(use_cache):
        torch.manual_seed(seed)
        *_, found = generate(Context(8), torch.ones(2, 3, dtype=torch.int64), 20, context=8, use_cache=use_cache)
        return found

    assert torch.equal(made(True), made(False))
