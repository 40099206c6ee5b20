"""The verdict of the claim about DQN's two parts, of made-up numbers."""

import json

import pytest
from matplotlib.figure import Figure

from dlx.claims.replay_and_target import NAMES, ReplayAndTarget


def measured(**means):
    found = {"most": 100.0}
    for name in NAMES:
        curves = [[[1, 2], [10, value]] for value in means[name.replace("-", "_")]]
        found[name] = {
            "test": means[name.replace("-", "_")], "mean": means[name.replace("-", "_")], "return": curves,
            "value": curves,
        }  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("no_replay", "no_target", "held"),
    [((10, 12), (90, 110), True), ((10, 12), (190, 220), False), ((200, 210), (90, 110), False)],
)
def test_both_must_be_better_than_each_alone(no_replay, no_target, held):
    found = measured(both=(200, 220), no_replay=no_replay, no_target=no_target, neither=(9, 9))
    verdict = ReplayAndTarget().verdict(found)
    assert verdict.held is held
    assert "no replay" in verdict.line


def test_values_far_above_what_can_be_are_drawn_on_a_scale_that_shows_both():
    figure = Figure()
    ReplayAndTarget().draw(measured(both=(90, 95), no_replay=(10, 12), no_target=(9000, 1), neither=(1, 1)), figure)
    assert figure.axes[1].get_yscale() == "symlog"
    assert len(figure.axes[0].get_lines()) == 2 * len(NAMES)


@pytest.mark.slow
def test_it_holds(dlx_call):
    """replay_and_target: 12 trainings of 22 s of a core."""
    call = dlx_call("train", "experiment=replay_and_target", "--json")
    assert call.code == 0, call.err
    told = json.loads(call.out)
    assert told["held"]
    assert min(curve[1][-1] for curve in told["metrics"]["no-target"]["value"]) > 10_000  # of 100 that can come
