"""The lectures show every system, optimizer, regularizer, method and claim; the history names what is there."""

import pytest

from dlx.config import compose
from dlx.config.course import history, lectures
from dlx.config.groups import option_file, options
from dlx.config.yaml import read_yaml

SHOWN = [shown for lecture in lectures() for shown in lecture.shows]
MADE_OF_OTHERS = {"ensemble"}  # of the runs that it is given


def wanted(group):
    names = {name for name in options(group) if "/" not in name}
    if group == "model":
        names -= MADE_OF_OTHERS
    if group == "experiment":
        names = {name for name in names if "experiment" in read_yaml(option_file(group, name))}
    return names


@pytest.mark.parametrize("group", ["model", "optimizer", "regularization", "method", "experiment"])
def test_every_option_is_in_one_lecture(group):
    found = [shown.option for shown in SHOWN if shown.group == group]
    assert sorted(found) == sorted(wanted(group))


@pytest.mark.parametrize("words", [shown.words for shown in SHOWN])
def test_every_command_composes(words):
    compose(words.split())


def test_the_history_is_in_order_and_names_what_is_shown():
    years = [event.year for event in history()]
    assert years == sorted(years)
    assert years[0] == 2012
    assert years[-1] <= 2020
    assert {event.shows.words for event in history()} <= {shown.words for shown in SHOWN}
    assert all(event.shows.text for event in history())
