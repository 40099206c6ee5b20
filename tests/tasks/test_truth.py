"""Translations against the truth: of a right generator, and of one that changes nothing; other data are refused."""

from types import SimpleNamespace

import pytest
import torch

from dlx.config.errors import UserError
from dlx.data.many_domains import ManyDomains
from dlx.tasks.adversarial import in_sign_range
from dlx.tasks.truth import truth


def opened(makes):
    """A run of a system that makes images [B, K, C, H, W] of those in 0..1 of the classes `label`."""
    data = ManyDomains(samples=40, side=16)
    spec, tensors = in_sign_range(data.spec), data.splits()["test"].tensors
    batch = {"image": spec.image.normalize(tensors["image"]), "label": tensors["label"]}
    names = spec.label.classes

    def in_all_domains(x, label):
        pixels = spec.image.denormalize(x)
        rows = [makes(data, pixels[n : n + 1], names[label[n]], names) for n in range(len(x))]
        return torch.stack(rows) * 2 - 1

    system = SimpleNamespace(
        spec=spec, names=names, in_all_domains=in_all_domains, domains=lambda batch: batch["label"]
    )
    loader = SimpleNamespace(eval_batches=lambda: [batch])
    return SimpleNamespace(system=system, dataset=data, loader=lambda split: loader)


def test_of_a_right_generator_the_error_is_none():
    found = truth(opened(lambda data, x, own, names: torch.cat([data.translated(x, own, name) for name in names])))
    assert found.metrics["truth/error"] < 1e-5
    assert found.metrics["truth/identity"] < 1e-5
    assert found.metrics["truth/unchanged"] > 0.15
    assert [list(row) for row in found.tables["L1"]] == [["from", "to day", "to night", "to dusk"]] * 3


def test_of_one_that_changes_nothing_it_is_that_of_the_images_as_they_are():
    found = truth(opened(lambda data, x, own, names: x.expand(len(names), -1, -1, -1)))
    assert found.metrics["truth/error"] == pytest.approx(found.metrics["truth/unchanged"], rel=1e-5)
    assert found.metrics["truth/identity"] == pytest.approx(0, abs=1e-6)
    rows = found.tables["L1"]
    assert rows[0]["to night"] == pytest.approx(rows[1]["to day"], rel=0.6)


def test_other_data_are_refused():
    with pytest.raises(UserError, match="needs data whose translations are known"):
        truth(SimpleNamespace(system=None, dataset=object()))
