import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlx.config.errors import UserError
from dlx.data import loader as module
from dlx.data.dataset import TensorSource
from dlx.data.loader import DeviceLoader, DeviceStore, WorkerLoader, make_loader
from dlx.data.splits import Split, SplitSettings
from dlx.random import generator
from dlx.tasks.spec import Image, Label, LabeledImages, Reals, RegressionReals

CPU = torch.device("cpu")
SPEC = LabeledImages(
    image=Image(channels=3, height=5, width=4, mean=(0.2, 0.5, 0.7), std=(0.1, 0.3, 0.6)),
    label=Label(classes=("a", "b")),
)


def images(n=50, seed=0):
    rng = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (n, 3, 5, 4), generator=rng, dtype=torch.uint8)
    return TensorSource(image=image, label=torch.randint(0, 2, (n,), generator=rng))


class Lazy:
    """A source that is no TensorSource: it decodes when asked."""

    def __init__(self, source):
        self.source, self.labels = source, source.tensors["label"]

    def __len__(self):
        return len(self.source)

    def take(self, index, draw=0):
        return self.source.take(index, draw)


def some_split(source=None, weighted=True):
    source = source or images()
    index = torch.randperm(len(source), generator=generator(0, "t"))[:23]
    weight = torch.rand(len(source), generator=generator(1, "t")) if weighted else None
    return Split(source, torch.cat([index, index[:4]]), weight)  # with repeats


def load(split, spec=SPEC, *, workers=0, batch_size=4, drop_last=True, **given):
    view = SplitSettings(batch_size=batch_size, workers=workers, drop_last=drop_last)
    return make_loader(split, spec.entries, view, device=CPU, **given)


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name]), name


def test_batches_are_the_samples_of_their_index():
    split = some_split()
    source = split.source.tensors
    loader = load(split)
    assert isinstance(loader, DeviceLoader)
    for batches in (loader.epoch(0), loader.eval_batches()):
        for batch in batches:
            assert batch.keys() == {"image", "label", "index", "weight"}
            index = batch["index"]
            assert index.dtype == torch.int64
            assert batch["image"].dtype == torch.float32
            assert torch.equal(batch["image"], SPEC.image.normalize(source["image"][index]))
            assert torch.equal(batch["label"], source["label"][index])
            assert torch.equal(batch["weight"], split.weight[index])


def test_an_epoch_is_a_permutation_of_the_split_without_its_last_partial_batch():
    split = some_split()
    loader = load(split)
    assert loader.steps_per_epoch == 6
    order = split.index[torch.randperm(27, generator=generator(0, "order", 3))]
    assert torch.equal(torch.cat([b["index"] for b in loader.epoch(3)]), order[:24])
    assert torch.equal(torch.cat([b["index"] for b in loader.eval_batches()]), split.index)
    kept = load(split, drop_last=False)
    assert kept.steps_per_epoch == 7
    assert torch.equal(torch.cat([b["index"] for b in kept.epoch(3)]), order)


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        return torch.cat([b["index"] for b in load(some_split(), seed=seed).epoch(epoch)])

    assert torch.equal(order(0, 0), order(0, 0))
    assert not torch.equal(order(0, 0), order(0, 1))
    assert not torch.equal(order(0, 0), order(1, 0))


@given(start=st.integers(0, 7), epoch=st.integers(0, 3), drop_last=st.booleans())
def test_a_start_continues_the_same_epoch(start, epoch, drop_last):
    loader = load(some_split(), drop_last=drop_last)
    whole = list(loader.epoch(epoch))
    assert len(whole) == loader.steps_per_epoch
    assert_same(loader.epoch(epoch, start), whole[start:])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_both_paths_give_the_same_batches_to_the_bit(workers, weighted):
    split = some_split(weighted=weighted)
    device = load(split, seed=5)
    lazy = load(Split(Lazy(split.source), split.index, split.weight), seed=5, workers=workers)
    assert isinstance(lazy, WorkerLoader)
    for epoch, start in ((0, 0), (1, 0), (1, 4), (0, 6)):
        assert_same(lazy.epoch(epoch, start), device.epoch(epoch, start))
    assert_same(lazy.eval_batches(), device.eval_batches())


def test_workers_are_used_where_they_are_asked_for():
    split = some_split()
    loader = load(split, workers=2)
    assert isinstance(loader, WorkerLoader)
    assert_same(loader.epoch(0), load(split).epoch(0))


def test_a_pass_that_is_left_early_leaves_nothing_behind():
    split = some_split()
    loader, device = load(split, workers=2), load(split)
    batches = loader.epoch(0)
    next(batches)
    assert_same(loader.eval_batches(), device.eval_batches())  # in the middle of the epoch
    assert_same(batches, list(device.epoch(0))[1:])
    next(loader.epoch(1))
    assert_same(loader.epoch(2), device.epoch(2))


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_draws_nothing_from_the_default_generator(workers):
    before = torch.default_generator.get_state()
    loader = load(some_split(), workers=workers)
    list(loader.epoch(0))
    list(loader.eval_batches())
    assert torch.equal(torch.default_generator.get_state(), before)


def test_what_exceeds_the_float_budget_stays_small_and_gives_the_same_bits(monkeypatch):
    split = some_split()
    ready = load(split)
    monkeypatch.setattr(module, "FLOAT_BUDGET", 0)
    compact = load(split)
    assert ready.resident.tensors["image"].dtype == torch.float32
    assert compact.resident.tensors["image"].dtype == torch.uint8
    assert (ready.resident.raw, compact.resident.raw) == ((), ("image",))
    assert_same(compact.epoch(0), ready.epoch(0))
    assert_same(compact.eval_batches(), ready.eval_batches())


@pytest.mark.parametrize("chunk", [1, 300, 1 << 20])
def test_moving_in_chunks_changes_nothing(monkeypatch, chunk):
    split = some_split()
    whole = list(load(split).eval_batches())
    monkeypatch.setattr(module, "CHUNK", chunk)
    assert_same(load(split).eval_batches(), whole)


def test_what_does_not_fit_in_memory_is_not_kept_there(monkeypatch):
    split = some_split()
    whole = list(load(split).epoch(0))
    monkeypatch.setattr(module, "_free_memory", lambda device: 4 * 1000)
    loader = load(split)
    assert isinstance(loader, WorkerLoader)
    assert_same(loader.epoch(0), whole)


def test_only_the_rows_of_a_split_are_moved_and_once_per_split():
    split, store = some_split(), DeviceStore()
    first, second = load(split, store=store), load(split, store=store, batch_size=8)
    assert first.resident is second.resident
    assert len(first.resident.tensors["image"]) == 23
    other = load(Split(split.source, torch.tensor([1, 2])), store=store)
    assert len(other.resident.tensors["image"]) == 2


def test_changes_to_a_batch_touch_neither_data_nor_later_batches():
    source = images()
    raw = {name: tensor.clone() for name, tensor in source.tensors.items()}
    split = Split(source, torch.arange(50))
    loader = load(split)
    expected = list(load(split).eval_batches())
    for batch in (*loader.epoch(0), *loader.eval_batches()):
        for tensor in batch.values():
            tensor.zero_()
    assert_same(loader.eval_batches(), expected)
    assert all(torch.equal(source.tensors[name], raw[name]) for name in raw)


def test_float_images_are_not_normalized_in_place():
    source = TensorSource(image=torch.rand(20, 3, 5, 4) * 255, label=torch.zeros(20, dtype=torch.int64))
    raw = source.tensors["image"].clone()
    split = Split(source, torch.arange(20))
    assert_same(load(split).eval_batches(), load(split, workers=1).eval_batches())
    assert torch.equal(source.tensors["image"], raw)


def test_vectors_go_both_ways():
    source = TensorSource(features=torch.rand(30, 2), target=torch.rand(30, 1))
    split, spec = Split(source, torch.arange(30)), RegressionReals(features=Reals(size=2), target=Reals())
    device = load(split, spec)
    batch = next(device.epoch(0))
    assert torch.equal(batch["features"], source.tensors["features"][batch["index"]])
    assert torch.equal(batch["target"], source.tensors["target"][batch["index"]])
    assert_same(load(split, spec, workers=1).epoch(0), device.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_share_each_effective_batch(workers):
    split = some_split()
    alone = list(load(split, batch_size=6).epoch(1, 1))
    ranks = [list(load(split, batch_size=6, rank=r, world_size=3, workers=workers).epoch(1, 1)) for r in range(3)]
    for number, batch in enumerate(alone):
        for name, tensor in batch.items():
            assert torch.equal(torch.cat([parts[number][name] for parts in ranks]), tensor)


def test_ranks_evaluate_every_sample_once():
    split = some_split()
    ranks = [torch.cat([b["index"] for b in load(split, rank=r, world_size=4).eval_batches()]) for r in range(4)]
    assert all(torch.equal(part, split.index[r::4]) for r, part in enumerate(ranks))
    few = Split(split.source, torch.tensor([7, 9]))
    assert [len(list(load(few, rank=r, world_size=4).eval_batches())) for r in range(4)] == [1, 1, 0, 0]


def test_ranks_need_batches_that_divide():
    with pytest.raises(UserError, match=r"^dataset\.batch_size: "):
        load(some_split(), batch_size=4, world_size=3)
    with pytest.raises(UserError, match=r"^dataset\.drop_last: "):
        load(some_split(), batch_size=4, world_size=2, drop_last=False)
    odd = SplitSettings(batch_size=4, eval_batch_size=256, drop_last=False)
    evaluation = make_loader(some_split(), SPEC.entries, odd, device=CPU, world_size=3, training=False)
    assert sum(len(batch["index"]) for batch in evaluation.eval_batches()) == 9


def test_an_empty_split_has_no_batches():
    loader = load(Split(images(), torch.tensor([], dtype=torch.int64)))
    assert list(loader.eval_batches()) == []
    assert list(loader.epoch(0)) == []


def test_memory_mapped_sources_are_loaded(tmp_path):
    from dlx.data.files import read_array

    source = images()
    for name, tensor in source.tensors.items():
        np.save(tmp_path / f"{name}.npy", tensor.numpy())
    mapped = TensorSource(**{name: read_array(tmp_path / f"{name}.npy") for name in source.tensors})
    index = torch.arange(50)
    expected = list(load(Split(source, index)).epoch(0))
    assert_same(load(Split(mapped, index)).epoch(0), expected)
    assert_same(load(Split(mapped, index), workers=1).epoch(0), expected)


def test_a_workers_error_reaches_the_person():
    class Broken(Lazy):
        def take(self, index, draw=0):
            raise UserError("photo.jpg cannot be decoded")

    loader = load(Split(Broken(images()), torch.arange(50)), workers=1)
    with pytest.raises(UserError, match=r"photo\.jpg cannot be decoded"):
        next(loader.epoch(0))
