import subprocess
import sys

import pytest
import torch

from dlx.data.digits import Digits


def test_digits_are_all_there_in_the_order_of_the_file():
    source = Digits().splits()["train"]
    image, label = source.tensors["image"], source.tensors["label"]
    assert (image.shape, image.dtype, label.dtype) == ((1797, 1, 8, 8), torch.uint8, torch.int64)
    assert image.max() == 16
    assert label.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert label[:10].tolist() == list(range(10))


def test_mean_and_std_are_those_of_the_images():
    spec, image = Digits.spec.image, Digits().splits()["train"].tensors["image"]
    assert spec.mean[0] == pytest.approx((image.double() / spec.scale).mean().item(), abs=1e-4)
    assert spec.std[0] == pytest.approx((image.double() / spec.scale).std(correction=0).item(), abs=1e-4)


def test_the_images_are_scikit_learns():
    expected = pytest.importorskip("sklearn.datasets").load_digits()
    source = Digits().splits()["train"]
    assert (source.tensors["image"].flatten(1).numpy() == expected.data).all()
    assert (source.tensors["label"].numpy() == expected.target).all()


HEAVY = {"sklearn", "torchvision", "torchmetrics", "matplotlib", "PIL", "scipy", "pandas"}


def imported(script):
    """Which heavy packages a fresh interpreter has loaded after a script."""
    run = f"{script}\nimport sys\nprint(*(set(sys.modules) & {HEAVY}))"
    return set(subprocess.run([sys.executable, "-c", run], check=True, capture_output=True, text=True).stdout.split())


def test_training_on_digits_imports_nothing_heavy():
    script = """
import torch
from dlx.data import cifar, files, function1d, image_folder, mnist
from dlx.data.digits import Digits
from dlx.data.loader import make_loader
from dlx.data.splits import SplitSettings
view = SplitSettings(batch_size=32)
split = view.split(Digits())["train"]
next(make_loader(split, Digits.spec.entries, view, device=torch.device("cpu")).epoch(0))
"""
    assert imported(script) == set()
