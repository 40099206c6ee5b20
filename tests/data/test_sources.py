"""Sources that are no plain tensors: windows of a stream, unpaired sides, samples of different length, what draws."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, TensorSource, Unpaired, Windows
from dlx.data.loader import DeviceLoader, DeviceStore, Loader, WorkerLoader, evaluation_batch, make_loader
from dlx.data.splits import Split, SplitSettings, UnpairedSplit, train_probe
from dlx.random import generator
from dlx.tasks.spec import (
    Image,
    Label,
    LabeledImages,
    Points,
    Reals,
    Size,
    Spec,
    Streams,
    Tokens,
    Translations,
    UnpairedImages,
)

CPU = torch.device("cpu")
seeded = settings(derandomize=True, deadline=None, max_examples=40)


class Given(Dataset):
    def __init__(self, spec, **sources):
        self.spec, self.given = spec, sources

    def splits(self):
        return self.given


def load(split, entries, *, training=True, rank=0, world_size=1, store=None, seed=0, **settings) -> Loader:
    view = SplitSettings(**{"batch_size": 4, **settings})
    return make_loader(
        split, entries, view, device=CPU, seed=seed, rank=rank, world_size=world_size, training=training, store=store
    )


def whole(source) -> Split:
    return Split(source, torch.arange(len(source)))


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name]), name


def indices(batches) -> list[int]:
    return [number for batch in batches for number in batch["index"].tolist()]


# Windows


STREAM = Streams(tokens=Tokens(vocabulary=1000, length=6))


def windows(tokens=50, length=6, **given) -> Windows:
    return Windows(torch.arange(tokens, dtype=torch.int16), length, **given)


@seeded
@given(st.integers(0, 40), st.integers(1, 9), st.none() | st.integers(1, 12))
def test_windows_are_all_that_fit_into_the_stream(tokens, length, stride):
    source = windows(tokens, length, stride=stride)
    starts = [start for start in range(0, tokens, stride or length) if start + length <= tokens]
    assert len(source) == len(starts)
    found = source.take(torch.arange(len(source)))["tokens"]
    assert found.shape == (len(starts), length)
    assert found.tolist() == [list(range(start, start + length)) for start in starts]


@seeded
@given(st.integers(2, 60), st.integers(2, 9))
def test_a_stride_of_one_less_predicts_each_token_once(tokens, length):
    source = windows(tokens, length, stride=length - 1)
    predicted = source.take(torch.arange(len(source)))["tokens"][:, 1:].flatten().tolist()
    assert predicted == list(range(1, 1 + (tokens - 1) // (length - 1) * (length - 1)))


def test_a_stream_is_kept_once():
    source, store = windows(stride=1), DeviceStore()
    splits = SplitSettings(batch_size=4).split(Given(STREAM, train=source))
    loaders = [load(split, STREAM.entries, store=store) for split in splits.values()]
    kept = {loader.windows.stream.data_ptr() for loader in loaders}
    assert kept == {source.stream.data_ptr()}  # on the CPU it is not even copied
    for loader in loaders:
        assert loader.windows is loaders[0].windows
        assert (loader.windows.stream.shape, loader.windows.stream.dtype) == ((50,), torch.int16)
    assert sum(len(split) for split in splits.values()) == len(source) == 45


def test_batches_of_windows():
    split = SplitSettings(batch_size=4).split(Given(STREAM, train=windows(stride=2)))["train"]
    loader = load(split, STREAM.entries)
    assert loader.steps_per_epoch == len(split) // 4
    for batch in (*loader.epoch(0), *loader.eval_batches()):
        assert batch.keys() == {"tokens", "index"}
        assert batch["tokens"].dtype == torch.int64
        assert torch.equal(batch["tokens"], 2 * batch["index"].unsqueeze(1) + torch.arange(6))
    assert indices(loader.eval_batches()) == split.index.tolist()
    assert_same(loader.epoch(1, 2), list(loader.epoch(1))[2:])
    workers = load(split, STREAM.entries, workers=2)
    assert_same(workers.epoch(1), loader.epoch(1))
    assert_same(workers.eval_batches(), loader.eval_batches())


def test_a_stream_that_is_too_short_is_refused():
    with pytest.raises(UserError, match="too few"):
        SplitSettings(batch_size=1).split(Given(STREAM, train=windows(5)))


def test_windows_may_be_weighted(tmp_path):
    np.save(tmp_path / "w.npy", np.arange(8) + 1.0)
    split = SplitSettings(batch_size=4, weights=str(tmp_path / "w.npy")).split(Given(STREAM, train=windows()))["train"]
    for workers in (1, 0):
        for batch in load(split, STREAM.entries, workers=workers).epoch(0):
            assert torch.equal(batch["weight"], split.weight[batch["index"]])


# Unpaired sides


SIDE = Image(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,), scale=1.0)
SIDES = UnpairedImages(image_a=SIDE, image_b=SIDE)


def side(name: str, count: int) -> TensorSource:
    """Images that are their own position."""
    return TensorSource(**{f"image_{name}": torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)})


def unpaired(a=30, b=13, **settings) -> dict[str, UnpairedSplit]:
    return SplitSettings(**{"batch_size": 4, **settings}).split(
        Given(SIDES, train=Unpaired(side("a", a), side("b", b)))
    )


def numbers(batches, name: str) -> list[int]:
    return [int(x) for batch in batches for x in batch[f"image_{name}"].flatten()]


@seeded
@given(st.integers(3, 60), st.integers(3, 60), st.integers(0, 3))
def test_each_side_is_split_by_itself(a, b, split_seed):
    splits = unpaired(a, b, split_seed=split_seed, batch_size=1)
    for name, count in (("a", a), ("b", b)):
        parts = {key: getattr(split, name).index for key, split in splits.items()}
        assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(count))
        assert len(parts["test"]) == -(-count // 5)
        alone = SplitSettings(batch_size=4, split_seed=split_seed).split(Given(SIDES, train=side(name, count)))
        assert all(torch.equal(parts[key], alone[key].index) for key in parts)
    for split in splits.values():
        assert len(split) == max(len(split.a), len(split.b))
        assert torch.equal(split.index, split.a.index)


@pytest.mark.parametrize("settings", [{"folds": 3, "fold": 1}, {"bootstrap": 2}, {"subset": 0.5}])
def test_the_views_keys_hold_for_each_side(settings):
    splits, plain = unpaired(**settings), unpaired()
    for name in ("a", "b"):
        assert torch.equal(getattr(splits["test"], name).index, getattr(plain["test"], name).index)
        pool = {*getattr(plain["train"], name).index.tolist(), *getattr(plain["val"], name).index.tolist()}
        assert {*getattr(splits["train"], name).index.tolist()} < pool


@pytest.mark.parametrize(("a", "b"), [(30, 13), (13, 30), (20, 20)])
def test_an_epoch_is_as_long_as_the_longer_side(a, b):
    split = unpaired(a, b)["train"]
    loader = load(split, SIDES.entries)
    counts = {name: len(getattr(split, name)) // 4 for name in ("a", "b")}
    assert loader.steps_per_epoch == max(counts.values())
    for name, count in counts.items():
        every = [batch for epoch in range(6) for batch in loader.epoch(epoch)]
        passes = [numbers(every[start : start + count], name) for start in range(0, len(every) - count, count)]
        allowed = set(getattr(split, name).index.tolist())
        for seen in passes:  # each a pass over the side, without repeats
            assert len(set(seen)) == len(seen) == 4 * count
            assert set(seen) <= allowed
        assert all(one != other for one, other in pairwise(passes))


def test_the_sides_have_orders_of_their_own_and_the_index_is_the_firsts():
    loader = load(unpaired(20, 20)["train"], SIDES.entries)
    batches = list(loader.epoch(0))
    assert numbers(batches, "a") != numbers(batches, "b")
    assert numbers(batches, "a") == indices(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_unpaired_batches_go_on_in_the_middle_of_an_epoch(workers):
    """Both sides, also where the shorter one is in the middle of a pass."""
    split = unpaired(31, 17)["train"]
    device, loader = load(split, SIDES.entries), load(split, SIDES.entries, workers=workers)
    for epoch in range(3):
        batches = list(device.epoch(epoch))
        starts = range(len(batches) + 1) if workers == 0 else (0, 3)
        for start in starts:
            assert_same(loader.epoch(epoch, start), batches[start:])
    assert_same(loader.eval_batches(), device.eval_batches())


def test_the_sides_do_not_wait_for_each_others_seed():
    split = unpaired()["train"]
    one, other = (list(load(split, SIDES.entries, seed=seed).epoch(0)) for seed in (0, 7))
    for name in ("a", "b"):
        assert numbers(one, name) != numbers(other, name)


def test_an_evaluation_sees_all_of_the_longer_side_once():
    for split in unpaired(13, 60).values():
        for loader in (load(split, SIDES.entries, training=False), load(split, SIDES.entries, eval_batch_size=5)):
            batches = list(loader.eval_batches())
            assert numbers(batches, "b") == split.b.index.tolist()
            assert set(numbers(batches, "a")) == set(split.a.index.tolist())
            assert numbers(batches, "a") == indices(batches)


def test_a_probe_of_unpaired_data_is_of_both_sides():
    found = train_probe(unpaired()["train"], 5, 0)
    assert (len(found.a), len(found.b)) == (5, 5)
    assert indices(load(found, SIDES.entries, training=False).eval_batches()) == found.a.index.tolist()


@pytest.mark.parametrize("key", ["weights", "targets"])
def test_unpaired_data_have_no_weights_and_targets(key):
    with pytest.raises(UserError, match="unpaired"):
        unpaired(**{key: "w.npy"})


def test_a_side_of_two_samples_is_too_small_to_split():
    assert len(unpaired(30, 3, batch_size=1)["train"].b) == 1
    with pytest.raises(UserError, match="2 samples are too few"):
        unpaired(30, 2)


def test_a_side_with_fewer_samples_than_a_batch_is_refused():
    with pytest.raises(UserError, match=r"dataset\.batch_size: 4 is more than the 3 samples of a side"):
        unpaired(30, 5)


@pytest.mark.parametrize(("a", "b"), [(30, 13), (13, 30), (30, 7)])
def test_without_drop_last_both_sides_of_a_batch_are_equally_large(a, b):
    for batch in load(unpaired(a, b)["train"], SIDES.entries, drop_last=False).epoch(0):
        assert len(batch["image_a"]) == len(batch["image_b"]) == len(batch["index"])


def test_a_side_of_a_given_split_that_is_empty_is_said():
    given = {"train": Unpaired(side("a", 30), side("b", 30)), "test": Unpaired(side("a", 5), side("b", 0))}
    with pytest.raises(UserError, match=r"empty|too few|no samples"):
        list(
            load(
                SplitSettings(batch_size=4).split(Given(SIDES, **given))["test"], SIDES.entries, training=False
            ).eval_batches()
        )


# Samples of different length


def texts(count: int, longest: int = 40, seed: int = 0) -> TensorSource:
    """Rows of their own number + 1 as often as they are long, then zeros."""
    length = torch.randint(1, longest + 1, (count,), generator=generator(seed, "lengths"))
    tokens = (torch.arange(count) + 1).unsqueeze(1).expand(-1, longest)
    source = TensorSource(source=tokens * (torch.arange(longest) < length.unsqueeze(1)), target=tokens[:, :2].clone())
    source.lengths = {"source": length}
    return source


PAIRS = Translations(source=Tokens(vocabulary=999, length=40, pad=0), target=Tokens(vocabulary=999, length=2))


def length_of(batch) -> torch.Tensor:
    return (batch["source"] > 0).sum(1)


@seeded
@given(st.integers(1, 90), st.integers(1, 20), st.integers(0, 3))
def test_every_sample_is_there_once_cut_to_the_longest_of_its_batch(count, batch_size, epoch):
    source = texts(count)
    loader = load(whole(source), PAIRS.entries, batch_size=batch_size, drop_last=False)
    batches = list(loader.epoch(epoch))
    assert len(batches) == loader.steps_per_epoch == -(-count // batch_size)
    assert sorted(indices(batches)) == list(range(count))
    for batch in batches:
        longest = source.lengths["source"][batch["index"]].max()
        assert batch["source"].shape == (len(batch["index"]), longest)
        assert torch.equal(length_of(batch), source.lengths["source"][batch["index"]])
        assert (batch["source"][:, 0] == batch["index"] + 1).all()
        assert batch["target"].shape[1] == 2  # which has no lengths


def test_batches_are_of_similar_length():
    source, spread = texts(800), []
    plain = TensorSource(**source.tensors)
    for own in (source, plain):
        batches = list(load(whole(own), PAIRS.entries, batch_size=16).epoch(0))
        spread.append(sum(int(length_of(b).max() - length_of(b).min()) for b in batches) / len(batches))
    assert spread[0] < 2
    assert spread[1] > 20


def test_batches_of_similar_length_come_in_any_order():
    """Not from short to long, and otherwise in each epoch."""
    loader = load(whole(texts(800)), PAIRS.entries, batch_size=16)
    one, other = ([int(length_of(batch).max()) for batch in loader.epoch(epoch)] for epoch in (0, 1))
    assert one not in (sorted(one), other)
    assert indices(loader.epoch(0)) != indices(loader.epoch(1))
    assert indices(loader.epoch(0)) == indices(loader.epoch(0))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_lengths(workers):
    source = texts(70)
    device, loader = (load(whole(source), PAIRS.entries, workers=n, batch_size=8) for n in (0, workers))
    assert isinstance(device, DeviceLoader)
    assert isinstance(loader, WorkerLoader)
    for epoch, start in ((0, 0), (1, 0), (1, 3)):
        assert_same(loader.epoch(epoch, start), device.epoch(epoch, start))
    assert_same(device.epoch(1, 3), list(device.epoch(1))[3:])
    assert_same(loader.eval_batches(), device.eval_batches())


def test_an_evaluation_keeps_its_order_and_is_cut_too():
    source = texts(30)
    loader = load(whole(source), PAIRS.entries, training=False, eval_batch_size=8)
    batches = list(loader.eval_batches())
    assert indices(batches) == list(range(30))
    assert all(batch["source"].shape[1] == length_of(batch).max() for batch in batches)
    assert loader.first(5)["source"].shape == (5, source.lengths["source"][:5].max())


def test_lengths_of_an_entry_that_nobody_reads_count_nothing():
    source = texts(60)
    loader = load(whole(source), {"target": PAIRS.target})
    assert loader.lengths == {}
    plain = load(whole(TensorSource(**source.tensors)), {"target": PAIRS.target})
    assert_same(loader.epoch(0), plain.epoch(0))


def test_no_sample_is_left_out_of_every_epoch():
    """Of 40 texts 32 are in the two batches of an epoch; which 8 are not must change."""
    source = texts(40)
    source.lengths = {"source": torch.arange(40) + 1}
    loader = load(whole(source), PAIRS.entries, batch_size=16)
    assert set().union(*(indices(loader.epoch(epoch)) for epoch in range(60))) == set(range(40))


# Images of several sizes


@dataclass(frozen=True, kw_only=True)
class Pictures(Spec):
    image: Image
    size: Size


PICTURES = Pictures(image=Image(channels=2, height=9, width=7, mean=(0.5, 0.1), std=(0.5, 0.2)), size=Size())


def pictures(count: int = 60) -> TensorSource:
    """Bytes, also beyond the size, where a batch must be 0."""
    rng = generator(0, "pictures")
    size = torch.stack([torch.randint(1, most + 1, (count,), generator=rng) for most in (9, 7)], 1)
    source = TensorSource(image=torch.randint(0, 256, (count, 2, 9, 7), generator=rng, dtype=torch.uint8), size=size)
    source.lengths = {"image": size}
    return source


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_several_sizes_are_cut_and_0_beyond_their_size(workers):
    source = pictures()
    loader = load(whole(source), PICTURES.entries, workers=workers, batch_size=6, drop_last=False)
    batches = [*loader.epoch(0), *loader.eval_batches()]
    assert sorted(indices(batches)) == sorted([*range(60)] * 2)
    for batch in batches:
        assert torch.equal(batch["size"], source.tensors["size"][batch["index"]])
        height, width = batch["size"].amax(0).tolist()
        assert batch["image"].shape == (len(batch["index"]), 2, height, width)
        for image, number, (h, w) in zip(batch["image"], batch["index"], batch["size"].tolist(), strict=True):
            assert torch.equal(image[:, :h, :w], PICTURES.image.normalize(source.tensors["image"][number])[:, :h, :w])
            assert (image[:, h:] == 0).all()
            assert (image[:, :, w:] == 0).all()
    areas = [batch["size"].prod(1).float() for batch in loader.epoch(0)]
    assert torch.stack([area.std() for area in areas]).mean() < 0.3 * source.tensors["size"].prod(1).float().std()
    assert_same(load(whole(source), PICTURES.entries, workers=2 - workers, batch_size=6).epoch(1, 2),
                list(load(whole(source), PICTURES.entries, workers=workers, batch_size=6).epoch(1))[2:])  # fmt: skip


# What draws, and what is not read


class Noisy:
    """A source that gives what it was asked with."""

    draws = True

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def take(self, index, draw=0):
        return {"features": torch.stack([index, torch.full_like(index, draw % 2**20)], 1).float()}


class NoisyTensors(TensorSource):
    def take(self, index, draw=0):
        batch = super().take(index)
        return {"features": torch.cat([batch["features"], torch.full((len(index), 1), draw % 2**20)], 1).float()}


DRAWN = Points(features=Reals(size=2))


def drawn(batches) -> set[float]:
    return {float(value) for batch in batches for value in batch["features"][:, 1]}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", [Noisy(), NoisyTensors(features=torch.arange(12.0).unsqueeze(1))])
def test_what_draws_is_given_another_draw_in_each_epoch(source, workers):
    loader = load(whole(source), DRAWN.entries, workers=workers)
    epochs = [drawn(loader.epoch(epoch)) for epoch in range(3)]
    assert all(len(found) == 1 for found in epochs)
    assert len(set().union(*epochs)) == 3
    assert_same(loader.epoch(1, 2), list(loader.epoch(1))[2:])
    assert drawn(loader.eval_batches()) == drawn(loader.eval_batches())
    assert len(drawn(loader.eval_batches()) | epochs[0]) == 2
    assert drawn([loader.first(3)]) == drawn(loader.eval_batches())
    assert drawn(load(whole(source), DRAWN.entries, workers=workers, seed=1).epoch(0)) != epochs[0]
    assert_same(load(whole(source), DRAWN.entries, workers=2 - workers).epoch(2), loader.epoch(2))


IMAGES = LabeledImages(
    image=Image(channels=1, height=2, width=2, mean=(0.5,), std=(0.5,)), label=Label(classes=("a", "b"))
)


class Decoding:
    """A source that decodes two entries, and notes which."""

    def __init__(self, names=("image", "label")):
        self.names = names
        self.decoded = []

    def __len__(self):
        return 20

    def take(self, index, draw=0):
        self.decoded += self.names
        made = {"image": torch.zeros(len(index), 1, 2, 2, dtype=torch.uint8), "label": index % 2}
        return {name: made[name] for name in self.names}


class Choosy(Decoding):
    def only(self, names):
        return Choosy([name for name in self.names if name in names])


def test_entries_that_are_not_read_are_not_moved():
    source = TensorSource(
        image=torch.zeros(20, 1, 2, 2, dtype=torch.uint8), label=torch.arange(20) % 2, size=torch.ones(20, 2).long()
    )
    entries = {"label": IMAGES.label}
    device = load(whole(source), entries)
    assert isinstance(device, DeviceLoader)
    assert device.resident.tensors.keys() == {"label", "index"}
    lazy = load(whole(source), entries, workers=2)
    assert lazy.source.tensors.keys() == {"label"}
    assert_same(lazy.epoch(0), device.epoch(0))


def test_entries_that_are_not_read_are_not_decoded_where_a_source_can():
    entries = {"label": IMAGES.label}
    choosy, plain = (load(whole(kind()), entries) for kind in (Choosy, Decoding))
    assert_same(choosy.epoch(0), plain.epoch(0))
    assert set(choosy.source.decoded) == {"label"}
    assert set(plain.source.decoded) == {"image", "label"}
    assert next(plain.epoch(0)).keys() == {"label", "index"}


def test_two_sets_of_entries_share_no_copy():
    source, store = TensorSource(features=torch.rand(9, 2), label=torch.arange(9) % 2), DeviceStore()
    split = whole(source)
    one, again = (load(split, {"features": DRAWN.features}, store=store) for _ in range(2))
    other = load(split, {"label": IMAGES.label}, store=store)
    assert one.resident is again.resident
    assert other.resident.tensors.keys() == {"label", "index"}


# How much at a time, and by how many processes


@pytest.mark.parametrize(
    ("shape", "batch_size", "given", "expected"),
    [
        ((1, 28, 28), 32, None, 256),  # small samples
        ((3, 224, 224), 32, None, 111),  # 64 MiB of floats
        ((3, 2048, 2048), 2, None, 2),  # one alone is 48 MiB: as in training
        ((1, 28, 28), 1000, None, 1000),
        ((3, 2048, 2048), 2, 7, 7),
        ((1, 28, 28), 32, 1, 1),
    ],
)
def test_how_many_samples_are_evaluated_at_a_time(shape, batch_size, given, expected):
    channels, height, width = shape
    image = Image(channels=channels, height=height, width=width, mean=(0.0,) * channels, std=(1.0,) * channels)
    view = SplitSettings(batch_size=batch_size, eval_batch_size=given)
    assert evaluation_batch(view, {"image": image}) == expected


def test_all_entries_that_are_read_count():
    long = {"source": Tokens(vocabulary=9, length=1 << 20)}
    assert evaluation_batch(SplitSettings(batch_size=1), long) == 16
    assert evaluation_batch(SplitSettings(batch_size=1), {**long, "target": Tokens(vocabulary=9, length=1 << 20)}) == 8
    assert evaluation_batch(SplitSettings(batch_size=1), {"label": IMAGES.label}) == 256


SOURCES = {
    "tensors": (whole(TensorSource(features=torch.rand(30, 2))), DRAWN.entries),
    "windows": (whole(windows(stride=1)), STREAM.entries),
    "noisy": (whole(Noisy(30)), DRAWN.entries),
    "texts": (whole(texts(50)), PAIRS.entries),
    "pictures": (whole(pictures()), PICTURES.entries),
    "unpaired": (unpaired(40, 30)["train"], SIDES.entries),
}


@pytest.mark.parametrize("name", SOURCES)
def test_two_processes_have_disjoint_halves_of_the_same_batch(name):
    split, entries = SOURCES[name]
    alone = load(split, entries, batch_size=8)
    ranks = [load(split, entries, batch_size=8, rank=rank, world_size=2) for rank in range(2)]
    assert [loader.steps_per_epoch for loader in ranks] == [alone.steps_per_epoch] * 2
    for epoch, start in ((0, 0), (1, 2)):
        triples = list(zip(alone.epoch(epoch, start), *(loader.epoch(epoch, start) for loader in ranks), strict=True))
        assert len(triples) == alone.steps_per_epoch - start
        for batch, *halves in triples:
            assert [len(half["index"]) for half in halves] == [4, 4]
            assert batch["index"].tolist() == indices(halves)
            for key in set(batch) - set(getattr(split.source, "lengths", None) or ()):  # those are cut by each half
                assert torch.equal(torch.cat([half[key] for half in halves]), batch[key]), key
    assert sorted(i for loader in ranks for i in indices(loader.eval_batches())) == sorted(
        indices(alone.eval_batches())
    )


@pytest.mark.parametrize("name", SOURCES)
def test_one_sample_is_a_batch_of_one(name):
    split, entries = SOURCES[name]
    if name == "unpaired":
        split = UnpairedSplit(split.source, *(Split(s.source, s.index[:1]) for s in (split.a, split.b)))
    else:
        split = Split(split.source, split.index[:1])
    loader = load(split, entries, batch_size=1)
    for batches in (loader.epoch(0), loader.eval_batches(), [loader.first(9)]):
        (batch,) = batches
        assert all(len(value) == 1 for value in batch.values())
        assert batch["index"].tolist() == split.index.tolist()


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "unpaired"])
def test_an_empty_split_has_no_batches(name):
    split, entries = SOURCES[name]
    loader = load(Split(split.source, split.index[:0]), entries)
    assert list(loader.epoch(0)) == list(islice(loader.eval_batches(), 1)) == []
    assert loader.steps_per_epoch == 0
