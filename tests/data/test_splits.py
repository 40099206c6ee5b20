import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, TensorSource
from dlx.data.splits import SplitSettings, assign_folds, stratified_sample
from dlx.random import generator
from dlx.tasks.spec import Image, Label, LabeledImages, Reals, RegressionReals


class Labelled(Dataset):
    """Images that are their own position; splits as asked for."""

    spec = LabeledImages(
        image=Image(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,)), label=Label(classes=("a", "b", "c", "d"))
    )

    def __init__(self, **labels):
        self.labels = {name: torch.as_tensor(values) for name, values in labels.items()}

    def splits(self):
        return {
            name: TensorSource(image=torch.zeros(len(label), 1, 1, 1, dtype=torch.uint8), label=label)
            for name, label in self.labels.items()
        }


class Real(Dataset):
    spec = RegressionReals(features=Reals(size=2), target=Reals(size=1))

    def splits(self):
        return {"train": TensorSource(features=torch.rand(50, 2), target=torch.rand(50, 1))}


class Vectors(Dataset):
    spec = RegressionReals(features=Reals(size=2), target=Reals(size=1))

    def __init__(self, test=False):
        self.test = test

    def splits(self):
        rng = generator(0, "t")
        train = TensorSource(features=torch.rand(50, 2, generator=rng), target=torch.rand(50, 1, generator=rng))
        given = {"test": TensorSource(features=torch.rand(5, 2), target=-torch.ones(5, 1))} if self.test else {}
        return {"train": train, **given}


labels = st.lists(st.integers(0, 3), min_size=20, max_size=200).map(torch.tensor)


def per_class(label):
    return torch.bincount(label, minlength=4)


def view(**given):
    return SplitSettings(**{"batch_size": 1, **given})


@given(labels, st.integers(0, 5))
def test_splits_are_disjoint_complete_and_stratified(label, split_seed):
    splits = view(split_seed=split_seed).split(Labelled(train=label))
    parts = [splits[name].index for name in ("train", "val", "test")]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(label)))
    assert all(torch.equal(part, part.sort().values) for part in parts)
    test = splits["test"].index
    assert len(test) == -(-len(label) // 5)
    share = per_class(label) * len(test) / len(label)
    assert ((per_class(label[test]) - share).abs() < 1).all()
    rest = torch.cat([splits["train"].index, splits["val"].index])
    assert len(splits["val"]) == -(-len(rest) // 10)
    share = per_class(label[rest]) * len(splits["val"]) / len(rest)
    assert ((per_class(label[splits["val"].index]) - share).abs() < 1).all()


@given(labels, st.data())
def test_choose_takes_each_class_in_its_share(label, data):
    count = data.draw(st.integers(0, len(label)))
    mask = stratified_sample(label, count, generator(0, "t"))
    assert int(mask.sum()) == count
    assert ((per_class(label[mask]) - per_class(label) * count / len(label)).abs() < 1).all()


@given(labels, st.integers(2, 15))
def test_folds_partition_the_pool(label, folds):
    fold = assign_folds(label, folds, generator(0, "t"))
    sizes = torch.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for own in range(4):
        sizes = torch.bincount(fold[label == own], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_each_sample_is_validated_on_in_exactly_one_fold():
    label = torch.arange(103) % 4
    splits = [view(folds=5, fold=fold).split(Labelled(train=label, test=label, val=label)) for fold in range(5)]
    assert torch.equal(torch.cat([s["val"].index for s in splits]).sort().values, torch.arange(103))
    for s in splits:
        both = torch.cat([s["train"].index, s["val"].index])
        assert torch.equal(both.sort().values, torch.arange(103))
        assert s["val"].source is s["train"].source


@given(st.sampled_from([{"subset": 30}, {"subset": 0.5}, {"folds": 3, "fold": 1}, {"bootstrap": 4}, {"batch_size": 7}]))
def test_the_test_split_depends_on_split_seed_alone(change):
    dataset = Labelled(train=torch.arange(100) % 4)
    test = view().split(dataset)["test"].index
    assert torch.equal(view(**change).split(dataset)["test"].index, test)
    assert not torch.equal(view(split_seed=1, **change).split(dataset)["test"].index, test)


@given(labels, st.integers(0, 9))
def test_bootstrap_draws_train_with_replacement(label, number):
    dataset = Labelled(train=label)
    plain, drawn = view().split(dataset), view(bootstrap=number).split(dataset)
    assert len(drawn["train"]) == len(plain["train"])
    assert set(drawn["train"].index.tolist()) <= set(plain["train"].index.tolist())
    assert torch.equal(drawn["val"].index, plain["val"].index)
    assert torch.equal(view(bootstrap=number).split(dataset)["train"].index, drawn["train"].index)


def test_bootstrap_replicates_differ():
    dataset = Labelled(train=torch.arange(100) % 4)
    first, second = (view(bootstrap=number).split(dataset)["train"].index for number in (0, 1))
    assert not torch.equal(first, second)
    assert len(first.unique()) < len(first)


@pytest.mark.parametrize(("subset", "size"), [(40, 40), (0.5, 40), (1.0, 80), (80, 80), (4, 4), (None, 80)])
def test_subset_is_a_number_or_a_fraction_of_what_is_not_test(subset, size):
    splits = view(subset=subset).split(Labelled(train=torch.arange(100) % 4))
    label = torch.arange(100) % 4
    pool = torch.cat([splits["train"].index, splits["val"].index])
    assert len(pool) == size
    assert (per_class(label[pool]) == size / 4).all()
    assert not set(pool.tolist()) & set(splits["test"].index.tolist())


def test_splits_that_are_given_are_kept():
    label = torch.arange(100) % 4
    splits = view().split(Labelled(train=label, val=label[:10], test=label[:20]))
    assert [len(splits[name]) for name in ("train", "val", "test")] == [100, 10, 20]
    assert splits["val"].source is not splits["train"].source


def test_real_targets_are_split_without_strata():
    splits = view().split(Real())
    assert [len(splits[name]) for name in ("train", "val", "test")] == [36, 4, 10]


def test_lazy_sources_give_their_labels():
    class Lazy:
        labels = torch.tensor([0] * 90 + [1] * 10)

        def __len__(self):
            return 100

    class Folder(Dataset):
        spec = Labelled.spec

        def splits(self):
            return {"train": Lazy()}

    test = view().split(Folder())["test"].index
    assert per_class(Lazy.labels[test])[:2].tolist() == [18, 2]


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
        ({"workers": -1}, "workers"),
        ({"subset": 1}, "subset"),
        ({"subset": 0}, "subset"),
        ({"subset": 1.5}, "subset"),
        ({"subset": 0.0}, "subset"),
        ({"fold": 0}, "fold"),
        ({"folds": 3}, "folds"),
        ({"fold": 0, "folds": 1}, "folds"),
        ({"fold": 3, "folds": 3}, "fold"),
        ({"fold": -1, "folds": 3}, "fold"),
        ({"bootstrap": -1}, "bootstrap"),
    ],
)
def test_values_out_of_range_name_their_key(given_, name):
    with pytest.raises(ValueError, match=rf"^{name} "):
        SplitSettings(**given_)


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ({"subset": 81}, "subset"),
        ({"subset": 3}, "subset"),
        ({"subset": 0.01}, "subset"),
        ({"fold": 0, "folds": 81}, "folds"),
    ],
)
def test_more_than_there_is_names_its_key(given_, name):
    with pytest.raises(UserError, match=rf"^dataset\.{name}: "):
        view(**given_).split(Labelled(train=torch.arange(100) % 4))


def test_a_large_batch_changes_no_split():
    splits = view(batch_size=500).split(Labelled(train=torch.arange(100) % 4))
    assert len(splits["train"]) == 72


def test_one_sample_cannot_be_split():
    with pytest.raises(UserError, match="too few"):
        view().split(Labelled(train=torch.tensor([0])))


def test_weights_have_mean_one_over_the_training_split(tmp_path):
    np.save(tmp_path / "w.npy", np.arange(100))
    splits = view(weights=str(tmp_path / "w.npy"), bootstrap=1).split(Labelled(train=torch.arange(100) % 4))
    train = splits["train"]
    assert train.weight.dtype == torch.float32
    assert train.weight[train.index].mean().item() == pytest.approx(1, abs=1e-6)
    assert train.weight[40] / train.weight[20] == pytest.approx(2)
    assert splits["val"].weight is None
    assert splits["test"].weight is None


@pytest.mark.parametrize(
    "bad",
    [
        np.ones(99),
        np.ones((100, 1)),
        -np.ones(100),
        np.full(100, np.nan),
        np.full(100, np.inf),
        np.zeros(100),
        np.full(100, 1e308),  # their sum is infinite
        np.ones(100, complex),
        np.full(100, "1"),
    ],
)
def test_bad_weights_name_key_and_file(tmp_path, bad):
    path = tmp_path / "w.npy"
    np.save(path, bad)
    with pytest.raises(UserError, match=r"^dataset\.weights: .*w\.npy"):
        view(weights=str(path)).split(Labelled(train=torch.arange(100) % 4))


def test_targets_stand_in_for_those_of_the_training_source(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(50.0)[:, None])
    splits = view(targets=str(tmp_path / "t.npy")).split(Vectors())
    plain = view().split(Vectors())
    for name, split in splits.items():
        assert torch.equal(split.index, plain[name].index)
        taken = split.source.take(split.index)
        assert torch.equal(taken["target"][:, 0], split.index.float())
        assert taken["target"].dtype == torch.float32
        assert torch.equal(taken["features"], plain[name].source.take(split.index)["features"])
    given_test = view(targets=str(tmp_path / "t.npy")).split(Vectors(test=True))["test"]
    assert (given_test.source.tensors["target"] == -1).all()


@pytest.mark.parametrize("bad", [np.ones((49, 1)), np.ones(50), np.full((50, 1), np.nan), np.full((50, 1), "1")])
def test_bad_targets_name_key_and_file(tmp_path, bad):
    path = tmp_path / "t.npy"
    np.save(path, bad)
    with pytest.raises(UserError, match=r"^dataset\.targets: .*t\.npy"):
        view(targets=str(path)).split(Vectors())
    with pytest.raises(UserError, match=r"^dataset\.targets: .*t\.npy.*no such file"):
        view(targets=str(path) + ".npy").split(Vectors())
    with pytest.raises(UserError, match=r"^dataset\.targets: stand in for real targets"):
        view(targets=str(path)).split(Labelled(train=torch.arange(100) % 4))


@pytest.mark.parametrize("content", [None, b"", b"not numpy", b"\x93NUMPY\x01\x00"])
def test_unreadable_weights_name_key_and_file(tmp_path, content):
    path = tmp_path / "w.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"^dataset\.weights: .*w\.npy"):
        view(weights=str(path)).split(Labelled(train=torch.arange(100) % 4))


def test_weights_with_pickled_objects_are_not_loaded(tmp_path):
    path = tmp_path / "w.npy"
    np.save(path, np.array([object()] * 100), allow_pickle=True)
    with pytest.raises(UserError, match=r"^dataset\.weights: "):
        view(weights=str(path)).split(Labelled(train=torch.arange(100) % 4))


def test_only_some_classes_in_every_split():
    label = torch.arange(200) % 4
    whole = view().split(Labelled(train=label))
    some = view(classes=["b", 3]).split(Labelled(train=label))
    for name, split in whole.items():
        kept = split.index[torch.isin(label[split.index], torch.tensor([1, 3]))]
        if name == "test":  # the same of each class as without
            assert torch.equal(some[name].index, kept)
        assert set(label[some[name].index].tolist()) == {1, 3}


def test_classes_of_given_splits_and_subsets():
    label = torch.arange(80) % 4
    some = view(classes=["a"], subset=0.5).split(Labelled(train=label, val=label, test=label))
    assert [len(some[name]) for name in ("train", "val", "test")] == [10, 20, 20]


@pytest.mark.parametrize(("dataset", "message"), [
    (Labelled(train=torch.arange(40) % 4), "dataset.classes: e: unknown class"), (Real(), "have no class labels"),
])  # fmt: skip
def test_classes_that_there_are_not(dataset, message):
    with pytest.raises(UserError, match=message):
        view(classes=["e"]).split(dataset)


def test_no_classes():
    with pytest.raises(ValueError, match="classes must name at least one"):
        view(classes=[])
