"""Environments of gymnasium: what is refused, what Atari's pictures go through, and how an episode comes back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_ends import assert_same_end

from dlx.config.errors import UserError
from dlx.data.gymnasium_ import Gymnasium
from dlx.random import reseed

gymnasium = pytest.importorskip("gymnasium")
TINY = ("trainer.max_steps=6", "trainer.validate_every=3", "trainer.log_every=2", "data.warmup=20", "data.episodes=2",
        "data.val_episodes=2", "data.batch_size=8")  # fmt: skip


class Lamp(gymnasium.Env):
    """Pictures of 40 x 30 whose brightness is the step's number, over 9 lives of 5 steps each; a flag that is drawn on
    each second frame only."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (as gymnasium has it)
    observation_space = gymnasium.spaces.Box(0, 255, (40, 30, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    class _Ale:
        count = 9

        def lives(self):
            return self.count

    def __init__(self, render_mode=None, bright=2):
        self.render_mode, self.bright, self.ale = render_mode, bright, self._Ale()

    def _seen(self):
        picture = np.full((40, 30, 3), min(255, self.bright * self.steps), np.uint8)
        if self.steps % 2:
            picture[:20] = 255
        return picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.ale.count = 0, 9
        return self._seen(), {}

    def step(self, action):
        self.steps += 1
        self.ale.count = 9 - self.steps // 5
        return self._seen(), float(action), self.ale.count == 0, False, {}

    def render(self):
        return self._seen()


class Silent(gymnasium.Env):
    """Draws what no seed sets, and has no time limit."""

    observation_space = gymnasium.spaces.Box(0, 1000, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)
    drawn = 0

    def reset(self, *, seed=None, options=None):
        return self._seen(), {}

    def _seen(self):
        Silent.drawn += 1
        return np.full(2, Silent.drawn, np.float64)

    def step(self, action):
        return self._seen(), 1.0, False, False, {}


@pytest.fixture(scope="module", autouse=True)
def stubs():
    for name, kind in (("Lamp-v0", Lamp), ("Silent-v0", Silent)):
        gymnasium.register(name, kind)
    yield
    for name in ("Lamp-v0", "Silent-v0"):
        del gymnasium.registry[name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"id": "CartPol-v1"}, "dataset.id: CartPol-v1: .*Did you mean: `CartPole`"),
        ({"id": "Pendulum-v1"}, "dataset.id: Pendulum-v1: its actions are Box.*only discrete ones"),
        ({"id": "os:path-v0"}, "dataset.id: os:path-v0: an id that names a module is not taken"),
        ({"id": "Blackjack-v1"}, "dataset.id: Blackjack-v1: it shows Tuple"),
        ({"options": {"gravity": 3}}, "dataset.options: CartPole-v1 does not take"),
        ({"id": "Lamp-v0"}, r"dataset.size: must be set, such as 84: Lamp-v0 shows pictures \[40, 30, 3\]"),
        ({"size": 84}, "dataset.size: must not be set, got 84: CartPole-v1 shows no pictures"),
    ],
)
def test_what_cannot_be_learned_is_one_line(words, message):
    with pytest.raises(UserError, match=message) as refused:
        Gymnasium(**words).spec  # noqa: B018
    assert "\n" not in str(refused.value)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr("dlx.config.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"dataset.id: CartPole-v1 needs gymnasium: pip install 'dlx\[rl\]'"):
        Gymnasium().spec  # noqa: B018
    there = lambda name: None if name == "ale_py" else 1  # noqa: E731
    monkeypatch.setattr("dlx.config.extras.importlib.util.find_spec", there)
    with pytest.raises(UserError, match=r"dataset.id: ALE/Pong-v5 needs ale_py: pip install 'dlx\[atari\]'"):
        Gymnasium(id="ALE/Pong-v5").spec  # noqa: B018


@pytest.mark.parametrize("word", ["data.id=CartPol-v1", "data.id=Pendulum-v1", "data.options.gravity=3"])
def test_a_wrong_request_writes_nothing(word, dlx_call):
    call = dlx_call("train", "model=dqn", "data=gymnasium", word)
    assert call.code == 2
    assert call.err.startswith("error: dataset.")
    assert len(call.err.splitlines()) == 1
    assert not Path("outputs").exists()


def test_numbers_of_states_are_one_hot():
    data = Gymnasium(id="FrozenLake-v1", options={"is_slippery": False})
    assert data.spec.observation.size == 16
    games = data.spec.episode.begin(torch.tensor([1, 2]))
    assert games.observation.tolist() == [[1.0] + 15 * [0.0]] * 2
    _, terminated, _ = games.step(torch.tensor([1, 2]))  # down, right
    assert games.observation.argmax(1).tolist() == [4, 1]
    assert not terminated.any()


def test_its_episodes_are_gymnasiums():
    games, made = Gymnasium().spec.episode.begin(torch.tensor([5])), gymnasium.make("CartPole-v1")
    expected, _ = made.reset(seed=5)
    terminated = False
    while not terminated:
        assert games.observation[0].tolist() == expected.tolist()
        expected, _, terminated, _, _ = made.step(1)
        reward, ended, truncated = games.step(torch.tensor([1]))
        assert ended.item() == terminated
    assert reward.item() == 1
    assert not truncated.any()
    assert games.step(torch.tensor([1]))[0].item() == 0  # what is over stands still


def test_a_time_limit_is_no_end():
    games = Gymnasium(limit=3).spec.episode.begin(torch.tensor([5]))
    rows = [games.step(torch.tensor([step % 2])) for step in range(3)]
    assert [(bool(terminated), bool(truncated)) for _, terminated, truncated in rows] == [(0, 0), (0, 0), (0, 1)]


def lamp(**words):
    return Gymnasium(id="Lamp-v0", size=4, **words)


def test_pictures_are_repeated_stacked_gray_and_the_brighter_of_two():
    data = lamp(frame_skip=4, stack=3)
    assert data.spec.observation.shape == (3, 4, 4)
    games = data.spec.episode.begin(torch.tensor([0]))
    assert games.observation.dtype == torch.uint8
    assert (games.observation == 0).all()  # the first frame three times
    reward, *_ = games.step(torch.tensor([2]))
    assert reward.item() == 8  # of four frames
    newest = games.observation[0, -1]
    assert (newest[:2] == 255).all()  # the flag of frame 3, which frame 4 lacks
    assert (newest[2:] == 8).all()
    games.step(torch.tensor([0]))
    assert games.observation[0, :, 3, 0].tolist() == [0, 8, 16]
    assert data.spec.episode.frame_seconds >= 4 / 30


def test_a_game_begins_with_actions_that_do_nothing():
    first = lamp(noops=9).spec.episode.begin(torch.arange(30)).observation[:, 0, 3, 0] // 2
    assert set(first.tolist()) == set(range(1, 10))


def test_a_lost_life_ends_an_episode_in_training_alone():
    data = lamp(frame_skip=1, life_loss=True)
    learning, playing = data.begin(torch.tensor([0])), data.spec.episode.begin(torch.tensor([0]))
    for step in range(1, 6):
        ends = [games.step(torch.tensor([0]))[1].item() for games in (learning, playing)]
        assert ends == [step == 5, False]
    learning.restart(torch.tensor([7]))
    learning.step(torch.tensor([0]))
    assert learning.each[0].made.unwrapped.steps == 6  # the game goes on
    while not playing.over.all():
        playing.step(torch.tensor([0]))
    assert playing.each[0].made.unwrapped.steps == 45


def test_a_memory_holds_at_least_a_stack_of_each():
    with pytest.raises(UserError, match=r"dataset.replay: must be at least 12, a stack of frames of each, got 9"):
        lamp(stack=4, environments=3, replay=9).splits()


@pytest.mark.parametrize("data", [{}, {"id": "FrozenLake-v1"}, {"id": "Lamp-v0", "size": 4, "stack": 3,
                                                                "life_loss": True, "noops": 4}])  # fmt: skip
def test_an_episode_comes_back_to_the_bit(data):
    whole, again = (Gymnasium(**data).begin(torch.tensor([3, 4])) for _ in range(2))
    reseed(0, "act")
    for step in range(30):
        whole.step(torch.randint(2, (2,)))
        whole.restart(torch.tensor([10 + step, 50 + step]))
    again.load_state(whole.state())
    for _ in range(20):
        assert torch.equal(again.observation, whole.observation)
        action = torch.randint(2, (2,))
        for one, other in zip(whole.step(action), again.step(action), strict=True):
            assert torch.equal(one, other)


def test_what_cannot_be_restored_is_said(capsys):
    whole, again = (Gymnasium(id="Silent-v0").begin(torch.tensor([3])) for _ in range(2))
    whole.step(torch.tensor([0]))
    again.load_state(whole.state())
    assert "warning: what the environment shows is not what it showed" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("data.environments=2",), ("data.id=Lamp-v0", "data.size=36", "data.stack=2",
                                                             "data.life_loss=true")])  # fmt: skip
def test_a_training_is_resumed_to_the_same_bits(words, dlx_call, sigterm_at):
    def run(*command, code=0):
        call = dlx_call(*command)
        assert call.code == code, call.err
        assert "warning" not in call.err
        return Path(json.loads(call.out.splitlines()[-1])["run"])

    train = ("train", "model=dqn", "data=gymnasium", "model.hidden=[8]", *TINY, *words, "--json")
    whole = run(*train)
    with sigterm_at(4):
        cut = run(*train, code=143)
    assert_same_end(run("resume", str(cut), "--json"), whole)
    call = dlx_call("eval", str(cut), "data.limit=7")
    assert call.code == 2
    assert "dataset.limit: the run's data have None, got 7" in call.err


def test_the_papers_setting_composes_on_pictures(dlx_call):
    """`experiment=dqn_atari` with a stub in place of Atari: the network of the paper on 4 frames of 84 x 84."""
    words = ("experiment=dqn_atari", "data.id=Lamp-v0", "data.options=null", "data.replay=500", "data.val_episodes=1",
             "data.episodes=1", "data.warmup=40")  # fmt: skip
    call = dlx_call("train", *words, "--dry-run")
    assert call.code == 0, call.err
    call = dlx_call("train", *words, "trainer.max_steps=3", "trainer.validate_every=3", "--json")
    assert call.code == 0, call.err
    run = Path(json.loads(call.out)["run"])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["parameters"] == 2 * 1_685_667  # of 3 actions; the target network too
    assert json.loads(call.out)["metrics"]["test/return"] == summary["test/return"]


def test_an_atari_game(dlx_call):
    pytest.importorskip("ale_py")
    data = Gymnasium(id="ALE/Breakout-v5", options={"frameskip": 1, "obs_type": "grayscale"}, size=84, stack=4,
                     frame_skip=4, life_loss=True)  # fmt: skip
    assert data.spec.observation.shape == (4, 84, 84)
    assert data.spec.action.classes == ("noop", "fire", "right", "left")
    games = data.begin(torch.tensor([0, 1]))
    lost = 0
    for _ in range(400):
        _, terminated, _ = games.step(torch.randint(4, (2,)))
        lost += int(terminated.sum())
        games.restart(torch.tensor([2, 3]))
    assert lost > 0
    again = data.begin(torch.tensor([0, 1]))
    again.load_state(games.state())
    assert torch.equal(again.observation, games.observation)
    assert replace(data.spec.episode, limit=10).begin(torch.tensor([0])).draw().shape[-1] == 3
