"""Control: greedy episodes by hand, and metrics that depend on no batch."""

import pytest
import torch

from dlx.data.chain import Chain
from dlx.runs.media import Animation
from dlx.tasks.control import Control


class Walker(Control):
    """Always takes one action; values are those of a table."""

    discount = 0.5

    def __init__(self, action, states=4, limit=6):
        super().__init__()
        self.spec = Chain(states=states, lure=0.25, limit=limit).spec
        self.register_buffer("q", torch.eye(2)[action] * 3)

    def forward(self, observation):
        return self.q.expand(len(observation), 2)


def metrics(system, seeds):
    batch = {"episode": torch.tensor(seeds), "index": torch.arange(len(seeds))}
    return system.metrics(system.evaluate(batch))


def test_episodes_by_hand():
    """From state s of 4 it is 4 - s steps to the end, whose reward of 1 is discounted for the steps before."""
    assert metrics(Walker(1), [0]) == {"return": 1, "value": 3, "discounted": 0.5**3}
    assert metrics(Walker(1), [0, 3]) == {"return": 1, "value": 3, "discounted": (0.5**3 + 1) / 2}
    # To the left from state 1: nothing, then the lure until the time limit.
    assert metrics(Walker(0), [1]) == {
        "return": 5 * 0.25,
        "value": 3,
        "discounted": 0.25 * sum(0.5**n for n in range(1, 6)),
    }


def test_no_metric_depends_on_the_batch():
    system, seeds = Walker(1), list(range(9))
    parts = [system.evaluate({"episode": torch.tensor(part)}) for part in (seeds[:2], seeds[2:])]
    together = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    assert system.metrics(together) == pytest.approx(metrics(system, seeds))


def test_a_sample_is_a_film_and_the_returns_come_last():
    torch.manual_seed(0)
    *frames, last = Walker(1).sample(3)
    assert all(set(frame) == {"episode"} for frame in frames)
    assert last["episode"].shape == (3, 20, 80, 3)
    assert last["reward"].tolist() == [[1.0]] * 3


def test_a_showcase_compares_what_was_expected_with_what_came():
    found = Walker(0).showcase({"episode": torch.tensor([1, 2])})
    assert isinstance(found["episode"], Animation)
    assert found["episode"].frames.shape[1:] == (20, 80, 3)
    (steps, values), (_, came) = found["values"].lines.values()
    assert steps == list(range(6))
    assert values == [3] * 6
    assert came[-1] == 0.25
    assert came[0] == pytest.approx(0.5 * came[1])


def test_an_answer_names_the_best_action():
    system = Walker(1)
    batch = {"observation": torch.eye(4)[:2]}
    answers = system.answer(batch, system.predict(batch))
    assert [answer.json["action"] for answer in answers] == ["right", "right"]
    assert answers[0].line == "right (expected return: left 0, right 3)"
