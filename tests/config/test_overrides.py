"""What a person may type, by Hydra's grammar and beyond it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx.config.overrides import Value, parse

QUICK = settings(max_examples=150, deadline=None)


def value(argument: str) -> Value:
    overrides, problems = parse([argument])
    assert problems == []
    (found,) = overrides.values
    return found


@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize(("short", "long"), [("optim", "optimizer"), ("data", "dataset"), ("reg", "regularization")])
def test_short_names_work_in_every_position(sign, short, long):
    assert value(f"{sign}{short}.a.b=1").key == f"{long}.a.b"
    assert value(f"~{short}.a") == Value(f"{long}.a", delete=True)
    overrides, problems = parse([f"{sign}{short}=x"])
    assert problems == []
    assert overrides.choices == {long: ["x"] if long == "regularization" else "x"}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("a.b=1", 1), ("a.b=1e-3", 1e-3), ("a.b=true", True), ("a.b=null", None), ("a.b=[1,x]", [1, "x"]),
        ("a.b={c: 1}", {"c": 1}), ("a.b='x, y'", "x, y"), ("a.b=~/x", "~/x"), ("a.b=größe", "größe"),
        ("a.b=x=y", "x=y"), ("a.b=it's", "it's"), ("a.b=", ""),
    ],
)  # fmt: skip
def test_values(argument, expected):
    assert value(argument).value == expected


@pytest.mark.parametrize(
    ("typed", "names"), [("[]", []), ("mixup", ["mixup"]), ("[mixup,dropout]", ["mixup", "dropout"]), ("null", [])]
)
def test_list_groups_take_one_or_several(typed, names):
    assert parse([f"reg={typed}"])[0].choices["regularization"] == names


@pytest.mark.parametrize("sweep", ["1,2", "choice(1,2)", "range(3)", "interval(0,1)", "glob(*)"])
def test_a_sweep_is_named(sweep):
    _, (problem,) = parse([f"optim.lr={sweep}"])
    assert str(problem) == f"optimizer.lr: takes one value in one run, got {sweep}"


@pytest.mark.parametrize("argument", ["resnet", "=x", "a b=1", "a=[", "a={b", "", "+", "~"])
def test_broken_syntax_is_one_problem(argument):
    _, problems = parse([argument])
    assert len(problems) == 1
    assert "\n" not in problems[0].message


@QUICK
@given(st.text(max_size=25))
def test_any_text_is_an_override_or_a_problem(text):
    overrides, problems = parse([text])
    assert len(problems) + len(overrides.values) + len(overrides.choices) == 1


@QUICK
@given(st.text(st.characters(codec="utf-8", exclude_characters=",()[]{}'\"\\$:", exclude_categories=["Cc", "Cs"])))
def test_raw_text_is_kept(text):
    assert value(f"name={text}").raw == text


@QUICK
@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_plain_values_survive(number):
    assert value(f"a.b={number}").value == number
