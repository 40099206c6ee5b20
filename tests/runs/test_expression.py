import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx.config.errors import UserError
from dlx.runs.catalog import Entry, Notes
from dlx.runs.expression import Compare, Expression, Joined, Literal, Not, check_orders, keys_of, parse
from dlx.runs.keys import check_keys


def entry(status="finished", metrics=None, tags=(), note="", **config) -> Entry:
    settings = {"model": "resnet", "optimizer.lr": 1e-2, "dataset.fold": None, "trainer.compile": False, **config}
    path = Path("outputs/a/20261101-resnet-1e3a")
    return Entry(
        id="a/20261101-resnet-1e3a", path=path, is_plan=False, plan=None, created=0.0, config=settings, status=status,
        metrics={"val/accuracy": 0.95, "val/loss": math.nan} if metrics is None else metrics, notes=Notes(tags, note),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val/accuracy > 0.9 and optimizer.lr <= 1e-2 and model == resnet and not status == failed", True),
        ("val/accuracy > .96", False),
        ("optim.lr == 0.01", True),
        ("optim.lr=1e-2", True),
        ('optim.lr == "0.01"', True),
        ("model in (mlp, cnn)", False),
        ("model in (mlp, resnet)", True),
        ('name ~ "RESNET"', True),
        ("name ~ resnet-1e3", True),
        ("name > 20261031 and name < 20261102", True),
        ("id ~ a/", True),
        ("tag == good", True),
        ("tags != good", False),
        ("tag != bad", True),
        ('note ~ "two words"', True),
        ("note == two", False),
        ("data.fold == null and trainer.compile == false", True),
        ("trainer.compile < 1", False),
        ("val/loss < inf or val/loss >= 0", False),
        ("val/loss != 1", True),
        ("missing != 1", False),
        ("not missing == 1", True),
        ("model == mlp or model == cnn or model == resnet and status == finished", True),
        ("(model == resnet or model == cnn) and status == failed", False),
        ("not (model == mlp or status == failed)", True),
        ("not not model == resnet", True),
        ("model < s", True),
        ("optim.lr < abc", False),
        ("'model' == 'resnet'", True),
    ],
)
def test_what_matches(text, expected):
    assert parse(text).matches(entry(tags=("good", "old"), note="It has two words")) is expected


def test_a_run_without_tags_or_note_has_no_such_key():
    for text in ("tag != good", "note != x", "reason != x"):
        assert not parse(text).matches(entry())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a key at the end"),
        ("model", "after model at the end"),
        ("a == 1 b == 2", "expected and, or or the end at character 8"),
        ("a > > 1", "expected a value after > at character 5, before '> 1'"),
        ("(a > 1", "expected a closing parenthesis at the end"),
        ("a in b", "values in parentheses after in at character 6"),
        ("a in (b c)", "expected a comma or a closing parenthesis at character 9"),
        ("a == 'b", "expected a quote that is closed at character 6"),
        ("a ! b", "expected a key or a comparison at character 3"),
        ("and == 1", "expected a key at character 1"),
        ("(" * 60, "at most 50 levels at character 51"),
        ("a" * 20_000, "at most 10,000 characters"),
    ],
)
def test_a_mistake_is_said_with_its_place(text, said):
    with pytest.raises(UserError) as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_has_the_nearest_name():
    with pytest.raises(UserError, match=r"^val/acuracy: no run has this key; did you mean val/accuracy\?"):
        check_keys(keys_of(parse("val/acuracy > 0.9")), [entry()])
    with pytest.raises(UserError, match=r"did you mean optimizer\.lr\?"):
        check_keys(["optim.rl"], [entry()])
    check_keys(keys_of(parse("tag == x or model == y or optim.lr > 1 or val/loss < 1")), [entry()])
    check_keys(["anything"], [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("reg == mixup", True), ("reg in (cutmix, dropout)", True), ("reg != dropout", False), ("reg == mix", False)],
)
def test_one_of_several_options_is_enough(text, expected):
    assert parse(text).matches(entry(regularization='["mixup", "dropout"]')) is expected


def test_an_order_of_numbers_and_a_text_is_a_mistake():
    for text in ("val/accuracy > 90%", "not (model == x or val/accuracy < abc)"):
        with pytest.raises(UserError, match=r"val/accuracy is a number, (90%|abc) is none"):
            check_orders(parse(text), [entry()])
    check_orders(parse("name > abc and val/accuracy > 0.9 and dataset.fold > x"), [entry()])


TEXT = st.text() | st.sampled_from(["resnet", "and", "1e-3", "optim.lr", "-inf", "", 'a"b\\', "null", "a b"])
COMPARISON = st.builds(
    lambda key, operator, values: f"{key} {operator} {values}",
    TEXT.map(lambda text: str(Literal(text, quoted=True))),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "~", "="]),
    TEXT.map(lambda text: str(Literal(text, quoted=True))) | st.floats(allow_nan=False).map(str),
) | st.sampled_from(["model in (mlp, 3, 'x y')", "a == b"])
EXPRESSION = st.recursive(
    COMPARISON,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: "({}) {} ({})".format(*parts)),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
    ),
    max_leaves=8,
)


@given(EXPRESSION)
def test_what_parses_prints_and_parses_back_the_same(text):
    found = parse(text)
    again = parse(str(found))
    assert again == found
    assert again.matches(entry()) is found.matches(entry())


@given(st.text(alphabet="ab1.e-'\"\\()<>=!~, \n", max_size=40) | st.text(max_size=40) | EXPRESSION.map(lambda t: t[1:]))
def test_no_text_raises_anything_but_a_user_error(text):
    try:
        found = parse(text)
    except UserError:
        return
    assert isinstance(found, (Compare, Not, Joined))
    found.matches(entry())
    assert parse(str(found)) == found


def test_the_long_names_are_what_prints():
    found: Expression = parse("optim.lr<1 and (data==digits or tags='x y')")
    assert str(found) == 'optimizer.lr < 1 and (dataset == digits or tag == "x y")'
