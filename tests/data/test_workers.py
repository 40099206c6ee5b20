"""What goes wrong in loader workers is one line that names the samples, and nothing waits for ever."""

import os
import time

import pytest
import torch

from dlx.config.errors import UserError
from dlx.data.dataset import TensorSource
from dlx.data.loader import make_loader, not_finite
from dlx.data.splits import Split, SplitSettings
from dlx.data.workers import DataError, Workers
from dlx.random import generator
from dlx.tasks.spec import Label, LabeledReals, Reals

SPEC = LabeledReals(features=Reals(size=2), label=Label(classes=("a", "b")))
SAMPLES = 24


class Unsendable(Exception):
    """Cannot be pickled: it holds a lambda."""

    def __init__(self, text):
        super().__init__(text)
        self.held = lambda: None


class Bad:
    """Sample 7 goes wrong, in the way it is told."""

    keys = tuple(f"photos/{n}.png" for n in range(SAMPLES))

    def __init__(self, way):
        self.way = way

    def __len__(self):
        return SAMPLES

    def take(self, index, draw=0):
        if (index == 7).any():
            self.way()
        return {"features": torch.zeros(len(index), 2), "label": torch.zeros(len(index), dtype=torch.int64)}


def load(source, workers=1, look=None, **settings):
    split = Split(source, torch.arange(len(source)))
    view = SplitSettings(batch_size=4, workers=workers, **settings)
    return make_loader(split, SPEC.entries, view, device=torch.device("cpu"), look=look)


def raises(error):
    def way():
        raise error

    return way


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_raises_is_named_with_the_original_words(workers):
    with pytest.raises(DataError) as error:
        list(load(Bad(raises(KeyError("brightness\nof it"))), workers).eval_batches())
    who = "worker 0: " if workers else ""
    assert str(error.value) == f"dataset: {who}sample photos/7.png: KeyError: 'brightness\\nof it'"
    assert "in take" in "".join(error.value.__notes__)  # for --debug


def test_an_error_that_cannot_be_sent_is_said():
    with pytest.raises(DataError, match=r"worker 0: sample photos/7\.png: Unsendable: broken"):
        list(load(Bad(raises(Unsendable("broken")))).eval_batches())


def test_what_a_source_says_in_its_own_words_stays():
    with pytest.raises(DataError) as error:
        list(load(Bad(raises(UserError("photos/7.png: not a picture")))).eval_batches())
    assert str(error.value) == "photos/7.png: not a picture"


def test_a_worker_that_dies_is_one_line_with_the_samples():
    with pytest.raises(DataError) as error:
        list(load(Bad(lambda: os._exit(9))).eval_batches())
    assert "a loader's worker died; samples photos/" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_worker_that_hangs_ends_within_the_timeout():
    begun = time.monotonic()
    said = r"dataset\.timeout: no batch came for 2 s; samples photos/4\.png, photos/5\.png"
    with pytest.raises(DataError, match=said):
        list(load(Bad(lambda: time.sleep(600)), timeout=2.0).eval_batches())
    assert time.monotonic() - begun < 60


def test_while_nothing_comes_there_is_a_look_at_signals():
    with pytest.raises(KeyboardInterrupt):
        list(load(Bad(lambda: time.sleep(600)), look=raises(KeyboardInterrupt())).eval_batches())


def test_a_slow_batch_is_waited_for(monkeypatch):
    monkeypatch.setattr("dlx.data.workers.POLL", 0.2)
    loader = load(Bad(lambda: time.sleep(0.5)))
    assert len(list(loader.eval_batches())) == SAMPLES // 4
    assert len(list(loader.eval_batches())) == SAMPLES // 4  # the next pass is whole too


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_found(bad):
    features = torch.zeros(SAMPLES, 2)
    features[13, 1] = bad
    loader = load(TensorSource(features=features, label=torch.zeros(SAMPLES, dtype=torch.int64)), 0)
    found = [not_finite(loader, step) for step in range(SAMPLES // 4)]
    assert [text for text in found if text] == ["features of samples 13"]
    order = torch.randperm(SAMPLES, generator=generator(0, "order", 0))
    assert found.index("features of samples 13") == order.tolist().index(13) // 4


def test_what_is_on_the_device_already_is_not_pinned():
    """As a replay memory on a GPU is; `meta` stands in for it."""

    class OnDevice:
        def __len__(self):
            return 4

        def take(self, index, draw=0):
            return {"x": torch.empty(len(index), device="meta")}

    (batch,) = Workers(OnDevice(), 0, seed=0, pinned=True).take((torch.arange(3),), 0)
    assert batch["x"].device.type == "meta"
    assert batch["x"].shape == (3,)
