"""DQN: the paper's networks, targets by hand, Q* of a chain, CartPole, and resume to the same bits."""

import json
import statistics
from pathlib import Path

import pytest
import torch
from PIL import Image as Picture
from run_ends import assert_same_end

from dlx.data.cartpole import CartPole
from dlx.data.chain import Chain, Chains
from dlx.models.reinforcement.dqn import DQN
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics
from dlx.tasks.spec import Image, ImageEpisodes, Label, Reals
from dlx.training.trained import open_all

SPEC = CartPole.spec
TINY = ("trainer.max_steps=8", "trainer.validate_every=4", "trainer.log_every=2", "data.warmup=20", "data.episodes=3")


def pixels(actions):
    screen = Image(channels=4, height=84, width=84, mean=(0.0,) * 4, std=(1.0,) * 4)
    return ImageEpisodes(
        observation=screen, next_observation=screen, action=Label(classes=tuple(map(str, range(actions)))),
        reward=Reals(), terminated=Reals(), episode=SPEC.episode,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "words", "expected"),
    [
        (4, {}, 1_686_180),
        (6, {}, 1_687_206),
        (18, {}, 1_693_362),
        (4, {"convolutions": "workshop", "hidden": (256,)}, 677_172),
    ],
)
def test_the_papers_networks(actions, words, expected):
    with torch.device("meta"):
        system = DQN(spec=pixels(actions), **words)
    assert sum(p.numel() for p in system.network.parameters()) == expected
    assert system(torch.zeros(2, 4, 84, 84, device="meta")).shape == (2, actions)


def batch_of(**columns):
    count = len(columns["reward"])
    given = {name: torch.tensor(value, dtype=torch.float32).view(count, -1) for name, value in columns.items()}
    given["action"] = given["action"].long()[:, 0]
    return {**given, "index": torch.arange(count)}


def table(system, network, rows):
    """Sets Q(s, a) of one-hot states."""
    layer = getattr(system, network).advantage[0]
    layer.weight.data.copy_(torch.tensor(rows).T)
    layer.bias.data.zero_()


TWO = batch_of(
    observation=[[1, 0], [0, 1]], action=[0, 1], reward=[1, -2], next_observation=[[0, 1], [1, 0]], terminated=[0, 1]
)


@pytest.mark.parametrize(("double", "expected"), [(False, [1 + 0.5 * 7, -2]), (True, [1 + 0.5 * 3, -2])])
def test_two_transitions_by_hand(double, expected):
    """The target network says 3 and 7 of the second state; the network itself prefers the first action there."""
    system = DQN(spec=Chain(states=2).spec, hidden=(), discount=0.5, double=double)
    table(system, "network", [[2.0, 0.0], [5.0, 4.0]])
    table(system, "target", [[9.0, 8.0], [3.0, 7.0]])
    assert system.aim(TWO)[:, 0].tolist() == expected
    loss, logs = system.training_loss(TWO, system.objectives()[0])
    errors = [2 - expected[0], 4 - expected[1]]
    huber = [abs(error) - 0.5 if abs(error) > 1 else error**2 / 2 for error in errors]
    assert loss.item() == pytest.approx(sum(huber) / 2)
    assert logs["value"].item() == pytest.approx((2 + 4) / 2)
    system.loss = torch.nn.functional.mse_loss
    assert system.training_loss(TWO, None)[0].item() == pytest.approx(sum(error**2 for error in errors) / 2)


@pytest.mark.parametrize("double", [False, True])
def test_no_gradient_flows_through_the_target(double):
    system = DQN(spec=Chain(states=2).spec, hidden=(), double=double)
    loss, _ = system.training_loss(TWO, None)
    loss.backward()
    assert not system.aim(TWO).requires_grad
    assert all(p.grad is None for p in system.target.parameters())
    weight = system.network.advantage[0].weight.grad  # [A, S]; only Q(s, a) of each transition moves
    assert (weight != 0).tolist() == [[True, False], [False, True]]
    assert [len(turn.params) for turn in system.objectives()] == [2]


def test_only_an_end_stops_the_future_and_no_time_limit():
    """A transition that a time limit cut off is one like any other (tests/data/test_acting.py: how it is stored)."""
    system = DQN(spec=Chain(states=2).spec, hidden=(), discount=0.9)
    after = system.target(TWO["next_observation"]).amax(1)
    for terminated, factor in ((0.0, 0.9), (1.0, 0.0)):
        batch = {**TWO, "terminated": torch.full((2, 1), terminated)}
        torch.testing.assert_close(system.aim(batch)[:, 0], TWO["reward"][:, 0] + factor * after)


@pytest.mark.parametrize(("tau", "every", "expected"), [(0.25, 1, [0.25, 0.4375]), (1.0, 2, [0.0, 1.0])])
def test_the_target_network_follows_softly_or_by_copies(tau, every, expected):
    system = DQN(spec=SPEC, hidden=(8,), tau=tau, sync_every=every)
    for name, value in (("network", 1.0), ("target", 0.0)):
        for p in getattr(system, name).parameters():
            p.data.fill_(value)
    found = []
    for step in range(2):
        system.after_step(step)
        found.append(next(system.target.parameters()).flatten()[0].item())
    assert found == pytest.approx(expected)


def test_at_first_the_target_network_is_the_network():
    system = DQN(spec=SPEC, hidden=(8,), dueling=True)
    x = torch.randn(3, 4)
    assert torch.equal(system.network(x), system.target(x))


def test_the_mean_of_a_dueling_networks_values_is_the_states_value():
    network = DQN(spec=SPEC, hidden=(16, 8), dueling=True).network
    x = torch.randn(5, 4)
    state = network.value(network.body(x))
    torch.testing.assert_close(network(x).mean(1, keepdim=True), state)
    plain = DQN(spec=SPEC, hidden=(16, 8)).network
    assert sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in plain.parameters()) == 16 * 8 + 8 + 9


def value_iteration(states, lure, discount):
    """Q* [S, A] of the chain, without its time limit."""
    place, best = torch.arange(states), torch.zeros(states)
    for _ in range(3000):
        left = lure * (place == 0) + discount * best[(place - 1).clamp(0)]
        right = torch.where(place == states - 1, 1.0, discount * best[(place + 1).clamp(0, states - 1)])
        q = torch.stack([left, right], 1)
        best = q.amax(1)
    return q


@pytest.mark.parametrize("words", [{}, {"double": True}, {"tau": 1.0, "sync_every": 20}])
def test_on_a_chain_q_becomes_that_of_value_iteration(words, dlx_call):
    """Q is a table; all states and actions are seen, so it must be Q*, within 2 %."""
    given = [f"model.{key}={value}" for key, value in {"tau": 0.05, **words}.items()]
    call = dlx_call(
        "train", "model=dqn", "data=chain", "data.states=6", "data.lure=0.05", "data.limit=20", "model.hidden=[]",
        "model.discount=0.9", *given, "data.epsilon_end=0.5", "optim=adam", "optim.lr=0.02", "scheduler=linear",
        "trainer.max_steps=1500", "trainer.validate_every=1500", "--json",
    )  # fmt: skip
    assert call.code == 0, call.err
    told = json.loads(call.out)
    system = open_all(RunFolder(told["run"])).system
    expected = value_iteration(6, 0.05, 0.9)
    found = system(torch.eye(6)).detach()
    assert ((found - expected).abs() / expected).max() < 0.02, (found, expected)
    greedy = Chains(torch.arange(20) + (1 << 31) + (1 << 20), 6, 0.05, 20)
    values = expected.amax(1)[greedy.place_N]
    assert told["metrics"]["test/value"] == pytest.approx(values.mean().item(), rel=0.02)
    assert told["metrics"]["test/discounted"] == pytest.approx(values.mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        {"hidden": (0,)}, {"convolutions": "atari"}, {"discount": 1.5}, {"sync_every": 0}, {"tau": 0.0}, {"tau": 1.5},
        {"loss": "l1"},
    ],
)  # fmt: skip
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DQN(spec=SPEC, **bad)


def test_pictures_must_be_large_enough():
    small = Image(channels=1, height=20, width=20, mean=(0.0,), std=(1.0,))
    spec = pixels(2).__class__(**{**pixels(2).entries, "observation": small, "next_observation": small})
    with pytest.raises(ValueError, match="convolutions of nature need larger images than 20x20"):
        DQN(spec=spec)


@pytest.mark.parametrize("words", [(), ("data.environments=3", "model.double=true", "model.dueling=true")])
def test_it_is_resumed_to_the_same_bits(words, dlx_call, sigterm_at):
    def run(*command, code=0):
        call = dlx_call(*command)
        assert call.code == code, call.err
        return Path(json.loads(call.out.splitlines()[-1])["run"])

    whole = run("train", "model=dqn", *TINY, *words, "--json")
    rows = [row for row in read_metrics(whole / "metrics.jsonl") if "train/loss" in row]
    assert {"train/return", "train/epsilon", "train/value"} <= set(rows[0])
    with sigterm_at(5):
        cut = run("train", "model=dqn", *TINY, *words, "--json", code=143)
    assert_same_end(run("resume", str(cut), "--json"), whole)


def test_every_command(dlx_call, here):
    call = dlx_call("train", "model=dqn", *TINY, "name=d", "--json")
    assert call.code == 0, call.err
    run = Path(json.loads(call.out)["run"])
    told = json.loads(call.out)["metrics"]
    assert {"val/return", "test/return", "test/value", "test/discounted"} <= set(told)
    assert told["test/discounted"] <= told["test/return"]
    call = dlx_call("eval", "d", "dataset.episodes=20", "--json")
    assert call.code == 0, call.err
    assert "warning" not in call.err
    metrics = json.loads(call.out)["metrics"]
    assert metrics["test/return"] * 20 == pytest.approx(round(metrics["test/return"] * 20))
    call = dlx_call("sample", "d", "-n", "2", "--json")
    assert call.code == 0, call.err
    made = json.loads(call.out)
    (film,) = [path for path in made["pictures"] if path.endswith(".gif")]
    with Picture.open(film) as frames:
        assert frames.n_frames > 2
    assert len(made["texts"]["reward"]) == 2
    (here / "states.csv").write_text("position,velocity,angle,angular_velocity\n0,0,0.1,0\n0,0,-0.1,0\n")
    call = dlx_call("predict", "d", "states.csv", "--json")
    assert call.code == 0, call.err
    (answer,) = json.loads(call.out)["predictions"]
    for action, values in zip(answer["action"], answer["values"], strict=True):
        assert action == max(values, key=values.get)
    assert {path.suffix for path in (run / "media").glob("episode-*")} == {".gif"}
    assert list((run / "media").glob("values-*.curve.json"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.workers=2", "dataset.workers: must not be set, got 2: this dataset is an environment"),
        ("data.subset=100", "dataset.subset: must not be set"),
        ("data.bootstrap=1", "dataset.bootstrap: must not be set"),
        ("data.replay=0", "dataset.replay: must be at least 1, got 0"),
        ("model.tau=2", "model.tau: must be in (0, 1], got 2"),
        ("data=digits", "DQN takes Episodes or ImageEpisodes"),
        ("reg=[mixup]", "regularization.mixup"),
        ("method=kfold", "is an environment"),
    ],
)
def test_a_wrong_request_is_one_line_before_anything_is_written(word, message, dlx_call):
    call = dlx_call("train", "model=dqn", word)
    assert call.code == 2
    assert message in call.err
    assert len(call.err.splitlines()) <= 3
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_cartpole_is_solved_within_50000_transitions_at_four_of_five_seeds(dlx_call):
    """dqn: the default; 110 s of a core for each seed."""
    found = []
    for seed in range(5):
        call = dlx_call("train", "model=dqn", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/return"])
    print(found)  # noqa: T201
    assert statistics.mean(value >= 475 for value in found) >= 0.8, found
