"""method=boosting: scikit-learn's AdaBoostClassifier and GradientBoostingRegressor with stumps, and going on."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingRegressor
from sklearn.tree import DecisionTreeClassifier

from dlx.config import build, compose, settings
from dlx.config.yaml import read_yaml
from dlx.methods.boosting import samme
from dlx.models.stump import Stump
from dlx.runs.folder import RunFolder
from dlx.tasks.spec import Image, Label, LabeledImages
from dlx.training.run import open_run

CLOUD = """
import torch
from dlx.data.dataset import Dataset, TensorSource
from dlx.tasks.spec import Image, Label, LabeledImages


class Cloud(Dataset):
    spec: LabeledImages = LabeledImages(
        image=Image(channels=1, height=2, width=3, mean=(0.0,), std=(1.0,), scale=1.0),
        label=Label(classes=("a", "b", "c")),
    )

    def __init__(self, *, apart: bool = False) -> None:
        self.apart = apart

    def splits(self):
        rng = torch.Generator().manual_seed(3)
        image = torch.randn(300, 1, 2, 3, generator=rng)
        label = (image.flatten(1)[:, :3] + torch.randn(300, 3, generator=rng)).argmax(1)
        if self.apart:
            label = (image[:, 0, 0, 0] > 0).long()
        return {"train": TensorSource(image=image, label=label)}
"""


@pytest.fixture
def cloud(write_files):
    """Classes of continuous features, where no two splits are equally good."""
    option = "# Clouds.\n_target_: cloud_pkg.data.Cloud\n"
    files = {"cloud_pkg/__init__.py": "", "cloud_pkg/data.py": CLOUD, "mine/dataset/cloud.yaml": option}
    write_files(files)
    return ("model=stump", "data=cloud", "method=boosting", "--conf-dir", "mine", "--trust", "cloud_pkg")


def boost(dlx_call, *words, code=0):
    call = dlx_call("train", *words, "--json")
    assert call.code == code, call.err
    found = json.loads(call.out)
    (row,) = found["members"]
    return Path(found["run"]), row, call.err


def fitted(spec, **batch):
    stump = Stump(spec=spec)
    stump.fit(SimpleNamespace(train=SimpleNamespace(all=lambda: [batch])))
    return stump


def splits_of(*words):
    """Inputs and targets of each split, as scikit-learn takes them."""
    base = compose(words)
    dataset = build(base, "dataset")
    ((name_x, entry),), (name_y,) = dataset.spec.inputs.items(), dataset.spec.targets
    found = {}
    for name, split in settings(base, "dataset").split(dataset).items():
        batch = split.source.take(split.index)
        x = entry.normalize(batch[name_x]).flatten(1)
        found[name] = x.numpy(), batch[name_y].double().numpy()
    return found


@pytest.mark.parametrize(("seed", "rate", "classes"), [(0, 1.0, 3), (1, 0.5, 2), (2, 1.0, 5)])
def test_samme_with_stumps_is_scikit_learns(seed, rate, classes):
    """Member for member: the same alphas, errors, and answers to samples that none of them saw."""
    rng, rounds = torch.Generator().manual_seed(seed), 40
    x, new = torch.randn(241, 6, generator=rng), torch.randn(500, 6, generator=rng)
    label = (x[:, :classes] + torch.randn(241, classes, generator=rng)).argmax(1)
    names = tuple(str(k) for k in range(classes))
    image = Image(channels=1, height=2, width=3, mean=(0.0,), std=(1.0,), scale=1.0)
    spec = LabeledImages(image=image, label=Label(classes=names))
    start = torch.rand(241, generator=rng).double().numpy()
    oracle = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=rounds, learning_rate=rate)
    oracle.fit(x.numpy(), label.numpy(), sample_weight=start)

    missed, votes, weight = [], torch.zeros(500, classes), start
    staged = oracle.staged_predict(new.numpy())
    for _ in range(rounds):
        batch = {"image": x.view(-1, 1, 2, 3), "label": label, "weight": torch.from_numpy(weight / weight.mean())}
        stump = fitted(spec, **batch)
        missed.append((stump(batch["image"]).argmax(1) != label).numpy())
        chain, weight = samme(missed, start, classes, rate)
        votes += chain.weights[-1] * torch.nn.functional.one_hot(stump(new.view(-1, 1, 2, 3)).argmax(1), classes)
        np.testing.assert_array_equal(votes.argmax(1).numpy(), next(staged))
    np.testing.assert_allclose(chain.weights, oracle.estimator_weights_, atol=1e-6)
    np.testing.assert_allclose(chain.errors, oracle.estimator_errors_, atol=1e-6)


def test_samme_on_digits_is_scikit_learns():
    data = splits_of("model=stump")
    x, label = torch.from_numpy(data["train"][0]).view(-1, 1, 8, 8), torch.from_numpy(data["train"][1]).long()
    oracle = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=20, random_state=0)
    oracle.fit(data["train"][0], label.numpy())
    ones = np.ones(len(label))
    missed, weight, spec = [], ones, build(compose(["model=stump"]), "dataset").spec
    for tree in oracle.estimators_:
        stump = fitted(spec, image=x, label=label, weight=torch.from_numpy(weight))
        assert stump.feature.item() == tree.tree_.feature[0]
        missed.append((stump(x).argmax(1) != label).numpy())
        chain, weight = samme(missed, ones, 10, 1.0)
    np.testing.assert_allclose(chain.weights, oracle.estimator_weights_, atol=1e-6)


def test_after_each_member_its_mistakes_weigh_as_much_as_a_guess():
    """By SAMME's alpha a member's weighted error becomes 1 - 1/K under the next weights (Zhu et al. 2009)."""
    rng = np.random.default_rng(0)
    miss = rng.random(50) < 0.3
    for classes in (2, 3, 10):
        _, weight = samme([miss], rng.random(50), classes, 1.0)
        assert weight @ miss == pytest.approx(1 - 1 / classes)


def test_how_a_chain_ends():
    none, few, most, all_ = np.zeros(20, bool), np.arange(20) < 4, np.arange(20) < 15, np.ones(20, bool)
    ones = np.ones(20)
    chain, _ = samme([few, none], ones, 3, 1.0)
    assert chain.weights[1] == 1.0
    assert "made no mistake" in chain.ended
    chain, _ = samme([few, all_], ones, 2, 1.0)
    assert len(chain.weights) == 1
    assert chain.ended == "member 1 was no better than a guess"
    chain, _ = samme([most], ones, 3, 1.0)  # something must answer
    assert chain.weights == [1.0]
    assert "no better than a guess" in chain.ended


def test_the_runs_of_a_chain_are_scikit_learns_adaboost(cloud, dlx_call, here):
    path, row, err = boost(dlx_call, *cloud, "method.members=6")
    base = compose(["model=stump", "data=cloud"], conf_dirs=["mine"], trust=["cloud_pkg"])
    dataset = build(base, "dataset")
    splits = settings(base, "dataset").split(dataset)
    x, y = {}, {}
    for name, split in splits.items():
        batch = split.source.take(split.index)
        x[name], y[name] = batch["image"].flatten(1).numpy(), batch["label"].numpy()
    oracle = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=6).fit(x["train"], y["train"])
    details = row["details"]
    np.testing.assert_allclose(list(details["weights"].values()), oracle.estimator_weights_, atol=1e-6)
    np.testing.assert_allclose(details["member_errors"], oracle.estimator_errors_, atol=1e-6)
    for split in ("train", "val", "test"):
        scores = list(oracle.staged_score(x[split], y[split]))
        np.testing.assert_allclose(details["staged"][split], 1 - np.array(scores), atol=1e-9)
    for number, tree in enumerate(oracle.estimators_):
        system, _ = open_run(RunFolder(path / "runs" / f"member-{number:03d}"), "test", trust=("cloud_pkg",))
        assert system.feature.item() == tree.tree_.feature[0]
    assert row["metrics"]["test/accuracy"] == pytest.approx(scores[-1])
    assert "of 6 together" in err
    assert (path / "media" / "boosting.png").stat().st_size > 1000


def test_residual_fitting_is_scikit_learns_gradient_boosting(dlx_call):
    words = ("model=stump", "data=function1d", "data.samples=300", "data.noise=0.1")
    _, row, _ = boost(dlx_call, *words, "method=boosting", "method.members=8", "method.learning_rate=0.5")
    data = splits_of(*words)
    oracle = GradientBoostingRegressor(n_estimators=8, learning_rate=0.5, max_depth=1)
    oracle.fit(data["train"][0], data["train"][1][:, 0])
    for split, (x, y) in data.items():
        staged = [np.mean((prediction - y[:, 0]) ** 2) for prediction in oracle.staged_predict(x)]
        np.testing.assert_allclose(row["details"]["staged"][split], staged, atol=1e-5)
    assert row["metrics"]["test/mse"] == pytest.approx(staged[-1], abs=1e-5)
    assert set(row["metrics"]) == {
        f"{split}/{name}" for split in ("val", "test") for name in ("loss", "mse", "mae", "r2")
    }
    assert row["details"]["offset"] == pytest.approx([data["train"][1].mean()], abs=1e-6)


def test_given_weights_are_where_it_begins(dlx_call, here):
    """Of the training samples only those to the left count: to the right the answer goes on as it is there."""
    words = ("model=stump", "data=function1d", "data.function=abs", "data.samples=300")
    source = build(compose(words), "dataset").splits()["train"]
    x = source.tensors["features"][:, 0].numpy()
    np.save("w.npy", (x < 0).astype(float))
    _, row, _ = boost(dlx_call, *words, "method=boosting", "method.members=2", "data.weights=w.npy")
    x, y = splits_of(*words)["train"]
    left = x[:, 0] < 0
    oracle = GradientBoostingRegressor(n_estimators=2, learning_rate=1.0, max_depth=1).fit(x[left], y[left, 0])
    squares = np.array([(prediction - y[:, 0]) ** 2 for prediction in oracle.staged_predict(x)])
    np.testing.assert_allclose(row["details"]["staged"]["train"], squares.mean(1), atol=1e-5)
    np.testing.assert_allclose(row["details"]["member_errors"], squares[:, left].mean(1), atol=1e-5)


@pytest.mark.parametrize("data", ["digits", "function1d"])
def test_a_chain_that_was_cut_off_goes_on(data, dlx_call, here, sigterm_at):
    folder = here / "a folder = with signs"
    words = ("model=mlp", "model.hidden=[4]", f"data={data}", "trainer.max_steps=4", "method=boosting",
             "method.members=3", f"output_root={folder}")  # fmt: skip
    path, whole, _ = boost(dlx_call, *words)
    with sigterm_at(6):  # the second step of the second member
        cut = dlx_call("train", *words, "--json")
    assert cut.code == 143
    other = Path(json.loads(cut.out)["run"])
    assert [run.name for run in sorted((other / "runs").iterdir())] == ["member-000", "member-001"]
    resumed = json.loads(dlx_call("resume", str(other), "--json").out)
    assert resumed["members"][0]["metrics"] == whole["metrics"]
    assert resumed["members"][0]["details"] == whole["details"]
    kind = "weights" if data == "digits" else "targets"
    for file in (path / kind).iterdir():
        assert file.read_bytes() == (other / kind / file.name).read_bytes()


def test_members_of_a_network_learn_what_was_missed(dlx_call):
    """The second member is right more often than the first where the first was wrong."""
    words = ("model=linear", "data.subset=300", "trainer.epochs=8", "seed=5", "method=boosting", "method.members=2")
    path, _, _ = boost(dlx_call, *words)
    seeds = [read_yaml(path / "runs" / f"member-{number:03d}" / "config.yaml")["seed"] for number in range(2)]
    assert seeds == [5, 6]
    weight = np.load(path / "weights" / "member-001.npy")
    wrong = []
    for number in range(2):
        system, loader = open_run(RunFolder(path / "runs" / f"member-{number:03d}"), "train")
        with torch.no_grad():
            parts = [(b["index"], system.predict(b)["label"] != b["label"]) for b in loader.all()]
        wrong.append((torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])))
    index, missed = wrong[0]
    heavy = torch.from_numpy(weight)[index] > weight[weight > 0].min() * 1.001
    assert torch.equal(heavy, missed)
    assert wrong[1][1][missed].float().mean() < 0.5


def test_a_member_without_mistakes_ends_the_chain(cloud, dlx_call):
    path, row, err = boost(dlx_call, *cloud, "data.apart=true")
    assert [run.name for run in (path / "runs").iterdir()] == ["member-000"]
    assert row["details"]["ended"] == "member 0 made no mistake on the training samples"
    assert "made no mistake" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["method.members=0"], "method.members: must be at least 1, got 0"),
        (["method.learning_rate=0"], "method.learning_rate: must be above 0, got 0"),
        (["model=mlp", "data.subset=20"], "dataset.batch_size: 32 is more than the 18 training samples"),
        (["data.weights=none.npy"], "none.npy: there is no such file"),
        (["--executor", "processes", "--jobs", "2"], "boosting trains one member after another"),
    ],
)
def test_bad_input_writes_nothing(words, text, dlx_call, here):
    model = [] if any(word.startswith("model=") for word in words) else ["model=stump"]
    call = dlx_call("train", *model, "method=boosting", *words)
    assert call.code == 2
    assert text in call.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("data", ["digits", "function1d"])
def test_dry_run_prints_the_first_member(data, dlx_call, here):
    call = dlx_call("train", "model=stump", f"data={data}", "method=boosting", "--dry-run")
    assert call.code == 0, call.err
    assert "member-000" in call.out
    assert list(here.iterdir()) == []
