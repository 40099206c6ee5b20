"""Dotted keys, monitors and range checks: the one home of each."""

import math

import pytest

from dlx.config import checks
from dlx.config.keys import flatten, long_key, short_key
from dlx.config.monitor import Monitor


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("optim.lr", "optimizer.lr"),
        ("reg", "regularization"),
        ("data.a.b", "dataset.a.b"),
        ("model.data", "model.data"),
    ],
)
def test_short_names_there_and_back(short, long):
    assert long_key(short) == long_key(long) == long
    assert short_key(long) == short_key(short) == short


def test_a_list_is_a_value_and_an_empty_mapping_has_no_keys():
    values = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": {}, "f": None, "g": {"h": {}}}
    assert dict(flatten(values)) == {"a.b": 1, "a.c": [1, {"d": 2}], "f": None}
    assert dict(flatten(3, "a")) == {"a": 3}


def test_a_monitor_is_a_name_and_a_goal():
    monitor = Monitor.parse("val/accuracy:max")
    assert monitor == ("val/accuracy", "max")
    assert (str(monitor), monitor.sign, Monitor.parse("a:b:min").name) == ("val/accuracy:max", -1, "a:b")
    assert [Monitor.find(text) for text in ("val/loss", "val/loss:least", ":min", "", None)] == [None] * 5
    with pytest.raises(ValueError, match=r"^monitor must be such as val/loss:min or val/accuracy:max, got 'loss'$"):
        Monitor.parse("loss")


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: checks.at_least(1, epochs=0), "epochs must be at least 1, got 0"),
        (lambda: checks.at_least(0, std=math.nan), "std must be at least 0, got nan"),
        (lambda: checks.above(0, width=0.0), "width must be above 0, got 0.0"),
        (lambda: checks.between("[0, 1)", dropout=1.0), "dropout must be in [0, 1), got 1.0"),
        (lambda: checks.between("(0, 1]", ema=0), "ema must be in (0, 1], got 0"),
        (lambda: checks.between("[0, 1]", a=0.5, b=math.nan), "b must be in [0, 1], got nan"),
        (lambda: checks.one_of(("a", "b"), stem="c"), "stem must be a or b, got 'c'"),
        (lambda: checks.one_of((1, 2, 3), size=4), "size must be 1, 2 or 3, got 4"),
        (lambda: checks.one_of("abcd", size="e"), "size must be one of a, b, c, d, got 'e'"),
    ],
)
def test_a_check_names_the_argument(check, said):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole text follows
        check()
    assert str(raised.value) == said


def test_what_is_in_range_or_not_set_passes():
    checks.at_least(1, a=1, b=None)
    checks.above(0, a=1e-9, b=None)
    checks.between("[0, 1)", a=0, b=None)
    checks.between("(0, 1]", a=1)
    checks.one_of((1, 2), a=2, b=None)
