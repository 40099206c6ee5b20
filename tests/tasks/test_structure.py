"""Free numbers of tables, as the course counts them."""

import itertools

import pytest

from dlx.tasks import structure


@pytest.mark.parametrize("n", [1, 4, 64])
def test_n_binary_pixels(n):
    assert structure.independent(n) == n
    assert structure.markov(n) == 2 * n - 1
    assert structure.full(n) == 2**n - 1


def test_an_rgb_pixel_of_bytes():
    assert structure.independent(3, 256) == 3 * 255
    assert structure.full(3, 256) == 256**3 - 1 == 16_777_215


@pytest.mark.parametrize("levels", [2, 3])
def test_a_chain_has_a_table_for_each_level_of_the_one_before(levels):
    for n in range(1, 6):
        entries = {
            (i, before, level) for i in range(n) for before in range(levels if i else 1) for level in range(levels)
        }
        tables = {(i, before) for i, before, _ in entries}
        assert structure.markov(n, levels) == len(entries) - len(tables)
        assert structure.full(n, levels) == len(list(itertools.product(range(levels), repeat=n))) - 1


def test_large_numbers_are_powers():
    assert structure.full_text(10) == "1,023"
    assert structure.full_text(3, 256) == "16,777,215"
    assert structure.full_text(784) == "2^784 - 1"
