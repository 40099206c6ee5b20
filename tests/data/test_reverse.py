import pytest

from dlx.data.reverse import Reverse


def test_targets_are_sources_backwards_and_no_two_are_alike():
    dataset = Reverse(samples=500, shortest=3, longest=5, symbols=8)
    pairs = dataset.pairs()["train"]
    assert len(set(pairs)) == 500
    assert all(target == source[::-1] for source, target in pairs)
    assert {len(source) for source, _ in pairs} == {3, 4, 5}
    assert {letter for source, _ in pairs for letter in source} == set("abcdefgh")
    assert (dataset.spec.source.length, dataset.spec.target.length) == (6, 7)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"samples": 9}, "samples"), ({"shortest": 0}, "shortest"), ({"longest": 7}, "longest"),
     ({"symbols": 27}, "symbols"), ({"symbols": 2, "shortest": 2, "longest": 3}, "samples")],
)  # fmt: skip
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} "):
        Reverse(**given)
