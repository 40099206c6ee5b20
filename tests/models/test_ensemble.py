"""The ensemble of runs: what it answers, what it needs, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dlx.config import Config
from dlx.models.ensemble import Ensemble
from dlx.models.mlp import MLP
from dlx.runs.folder import RunFolder
from dlx.tasks.spec import Reals, RegressionReals
from dlx.training.load import load_system

QUICK = ("model=mlp", "trainer.max_steps=20")
VECTOR = RegressionReals(features=Reals(size=1), target=Reals(size=1))


@pytest.fixture
def trained(dlx_call):
    def train(*words, hidden=8):
        call = dlx_call("train", *QUICK, f"model.hidden=[{hidden}]", *words, "--json")
        assert call.code == 0, call.err
        found = json.loads(call.out)
        return found["run"], found["metrics"]

    return train


@pytest.fixture
def joined(dlx_call):
    def train(runs, *words, code=0):
        call = dlx_call("train", "model=ensemble", f"model.members_from=[{','.join(runs)}]", *words, "--json")
        assert call.code == code, call.err
        return (json.loads(call.out) if call.out else None), call.err

    return train


def test_of_one_member_it_is_that_member(trained, joined):
    run, metrics = trained()
    found, _ = joined([run])
    for name in ("val/accuracy", "test/accuracy", "test/nll"):
        assert found["metrics"][name] == pytest.approx(metrics[name], abs=1e-6)


def test_it_averages_its_members_and_needs_their_folders_no_more(trained, joined, dlx_call):
    runs = [trained(f"seed={seed}")[0] for seed in range(2)]
    found, _ = joined(runs)
    systems = [load_system(RunFolder(run)) for run in runs]
    for run in runs:
        shutil.rmtree(run)
    together = load_system(RunFolder(found["run"]))
    x_BCHW = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected_BK = torch.stack([system(x_BCHW).softmax(-1) for system in systems]).mean(0)
        torch.testing.assert_close(together(x_BCHW).exp(), expected_BK)
    evaluated = json.loads(dlx_call("eval", found["run"], "--json").out)["metrics"]
    assert evaluated["test/nll"] == pytest.approx(found["metrics"]["test/nll"])
    assert dlx_call("export", found["run"], "--format", "safetensors").code == 0
    again = dlx_call("train", "--from", found["run"])  # anew it would have to begin with their weights
    assert again.code == 2
    assert "model.members_from: " in again.err
    assert "no such run" in again.err


def test_its_configuration_has_its_members_blocks_and_its_weights_stay(trained, joined, dlx_call):
    runs = [trained(f"seed={seed}", hidden=4 + seed)[0] for seed in range(2)]
    found, _ = joined(runs, "model.weights=[3,1]", "model.vote=majority")
    model = Config.load(Path(found["run"], "config.yaml"))["model"]
    assert [block["hidden"] for block in model["members"]] == [[4], [5]]
    assert model["members_from"] == runs
    assert load_system(RunFolder(found["run"])).weight_M.tolist() == [3, 1]
    heavier = json.loads(dlx_call("eval", runs[0], "--json").out)["metrics"]
    assert found["metrics"]["test/accuracy"] == heavier["test/accuracy"]


def test_an_ensemble_of_ensembles(trained, joined):
    run, metrics = trained()
    inner, _ = joined([run])
    outer, _ = joined([inner["run"], inner["run"]])
    assert outer["metrics"]["test/nll"] == pytest.approx(metrics["test/nll"], abs=1e-6)


def test_a_sum_with_an_offset_is_additive():
    members = tuple(MLP(spec=VECTOR, hidden=(3,)) for _ in range(2))
    system = Ensemble(spec=VECTOR, members=members, weights=(0.5, 2.0), vote="sum", offset=(1.0,))
    x_BF = torch.randn(4, 1)
    torch.testing.assert_close(system(x_BF), 1 + 0.5 * members[0](x_BF) + 2 * members[1](x_BF))
    assert system.objectives() == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"members": ()}, "members_from must name at least one run"),
        ({"weights": (1.0, 2.0)}, "weights must be 1 numbers"),
        ({"weights": (-1.0,)}, "weights must not be negative"),
        ({"weights": (0.0,)}, "weights must not be negative, nor all 0"),
        ({"vote": "majority"}, "vote must be average or sum for real targets"),
        ({"vote": "veto"}, "vote must be average, majority or sum, got 'veto'"),
        ({"offset": (1.0,)}, "offset must be 1 numbers, with vote=sum"),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        Ensemble(**{"spec": VECTOR, "members": (MLP(spec=VECTOR),), **arguments})


def test_bad_input_is_said_before_anything_is_written(trained, joined, dlx_call, here):
    run, _ = trained()
    changed, _ = trained("name=changed")
    config = Path(changed, "config.yaml")
    config.write_text(config.read_text().replace("- 8\n", "- 9\n"))
    before = sorted(here.rglob("*"))
    for runs, words, text in (
        ([run, "nowhere"], [], "model.members_from: nowhere: no such run"),
        ([run], ["data=function1d"], "was trained on other data (digits)"),
        ([run, changed], [], f"model.members_from: {changed}: its weights lack layers.0.weight"),
        ([run], ["model.weights=[1,2]"], "model.weights: must be 1 numbers"),
        ([run], ["reg=[mixup]"], "regularization: does nothing for ensemble"),
        ([run], ["model.members=[{_target_: os.system}]"], "not in an allowed package"),
        ([run], ["model.members=[{_target_: dlx.models.mlp.MLP, hiden: [3]}]"], "model.members.0.hiden"),
        ([run], ["model.members=[3]"], "model.members.0: must name an option, such as {name: resnet}, got 3"),
    ):
        _, err = joined(runs, *words, code=2)
        assert text in err
    assert "model.members_from: has no default" in dlx_call("train", "model=ensemble").err
    assert sorted(here.rglob("*")) == before
