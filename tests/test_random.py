"""Draws by row: functions of a scope and of a sample's index alone, whatever batch the sample is in."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx.random import derive, generator, normal_rows, reseed, uniform_rows

seeded = settings(derandomize=True, deadline=None, max_examples=40)
MANY = torch.arange(100_000)
ROWS = [uniform_rows, normal_rows]
indices = st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20).map(torch.tensor)
shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


def test_uniform_rows_are_uniform():
    x = uniform_rows("test", MANY, 4)
    assert x.dtype == torch.float32
    assert (x > 0).all()
    assert abs(x.mean() - 1 / 2) < 5 / math.sqrt(12 * x.numel())
    assert abs(x.var() - 1 / 12) < 5 / math.sqrt(180 * x.numel())
    share = torch.histc(x, 20, 0, 1) / x.numel()
    assert (share - 1 / 20).abs().max() < 5 * math.sqrt(0.05 * 0.95 / x.numel())


def test_normal_rows_are_standard_normal():
    x = normal_rows("test", MANY, 4).double()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(x.pow(power).mean() - moment) < 5 * math.sqrt(spread / x.numel()), power


@pytest.mark.parametrize("rows", ROWS)
def test_columns_neighbours_and_scopes_are_not_correlated(rows):
    x = rows("test", MANY, 3)
    other = rows("tests", MANY, 3)
    columns = torch.stack([x[1:, 0], x[1:, 1], x[1:, 2], x[:-1, 0], other[1:, 0], other[1:, 1]])
    correlation = torch.corrcoef(columns) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(len(MANY))


@pytest.mark.parametrize("rows", ROWS)
@seeded
@given(index=indices, shape=shapes, data=st.data())
def test_a_row_is_the_same_in_any_batch(rows, index, shape, data):
    whole = rows("test", index, *shape)
    assert whole.shape == (len(index), *shape)
    some = torch.tensor(data.draw(st.lists(st.integers(0, len(index) - 1), min_size=1, max_size=9)))
    assert torch.equal(rows("test", index[some], *shape), whole[some])
    assert torch.equal(torch.stack([rows("test", i, *shape) for i in index]), whole)


@pytest.mark.parametrize("rows", ROWS)
def test_vmap_takes_them(rows):
    index = torch.arange(24).view(4, 6)
    stacked = torch.func.vmap(lambda own: rows("test", own, 2, 3))(index)
    assert torch.equal(stacked, rows("test", index.flatten(), 2, 3).view(4, 6, 2, 3))
    single = torch.func.vmap(lambda own: rows("test", own))(index)
    assert torch.equal(single, rows("test", index.flatten()).view(4, 6))


@pytest.mark.parametrize("rows", ROWS)
def test_scopes_differ_and_nothing_is_drawn_from_a_generator(rows):
    before = torch.default_generator.get_state()
    one, other = rows("one", MANY[:1000], 5), rows("other", MANY[:1000], 5)
    assert (one == other).float().mean() < 1e-3
    assert torch.equal(one, rows("one", MANY[:1000], 5))
    assert torch.equal(torch.default_generator.get_state(), before)


def test_no_numbers_are_a_row_too():
    assert uniform_rows("test", MANY[:3], 0).shape == (3, 0)
    assert uniform_rows("test", MANY[:0], 2).shape == (0, 2)


def test_the_largest_draw_is_below_one():
    index = torch.tensor([25_866_996])  # its 24 bits in scope "a" are all ones
    assert uniform_rows("a", index).item() < 1
    assert normal_rows("a", index).isfinite().all()


@seeded
@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), max_size=3))
def test_a_derived_seed_is_a_function_of_seed_scope_and_counters(seed, counters):
    value = derive(seed, "a", *counters)
    assert 0 <= value < 2**63
    assert value == derive(seed, "a", *counters)
    others = {derive(seed, "b", *counters), derive(seed ^ 1, "a", *counters), derive(seed, "a", *counters, 0)}
    assert value not in others


def test_a_generator_of_its_own_leaves_the_default_one():
    before = torch.default_generator.get_state()
    one = torch.rand(3, generator=generator(0, "a", 1))
    assert torch.equal(one, torch.rand(3, generator=generator(0, "a", 1)))
    assert torch.equal(torch.default_generator.get_state(), before)
    reseed(0, "a", 1)
    assert torch.equal(torch.rand(3), one)
