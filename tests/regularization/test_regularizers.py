import pytest
import torch

from dlx.random import reseed
from dlx.regularization.augmentation import Augmentation
from dlx.regularization.mixup import Mixup


def test_mixup_is_one_convex_combination_of_inputs_and_labels(system, batch):
    reseed(1, "batch")
    mixed = Mixup(alpha=1.0).on_batch(batch, system)
    reseed(1, "batch")
    weight = torch._sample_dirichlet(torch.tensor([1.0, 1.0]))[0]
    partner = torch.randperm(16)
    one_hot = torch.eye(10)[batch["label"]]
    for name, values in (("image", batch["image"]), ("label", one_hot)):
        torch.testing.assert_close(mixed[name], weight * values + (1 - weight) * values[partner])
    torch.testing.assert_close(mixed["label"].sum(1), torch.ones(16))


def test_mixup_draws_the_beta_distribution(system, batch):
    weights = []
    for step in range(400):
        reseed(0, "batch", step)
        weights.append(torch._sample_dirichlet(torch.tensor([0.2, 0.2]))[0].item())
    sample = torch.tensor(weights)
    assert sample.mean().item() == pytest.approx(0.5, abs=0.06)
    assert sample.var().item() == pytest.approx(0.25 / 1.4, abs=0.03)  # 1 / (4 (2 alpha + 1))


def test_loss_on_soft_labels_is_the_weighted_loss(system, batch):
    reseed(1, "batch")
    mixed = Mixup(alpha=1.0).on_batch(batch, system)
    objective = system.objectives()[0]
    loss, _ = system.training_loss(mixed, objective)
    reseed(1, "batch")
    weight = torch._sample_dirichlet(torch.tensor([1.0, 1.0]))[0]
    partner = torch.randperm(16)
    parts = [
        system.training_loss({**mixed, "label": label}, objective)[0]
        for label in (batch["label"], batch["label"][partner])
    ]
    torch.testing.assert_close(loss, weight * parts[0] + (1 - weight) * parts[1])


def test_a_crop_is_a_window_of_the_black_padded_image(system, batch):
    reseed(1, "batch")
    cropped = Augmentation(crop=2, flip=False).on_batch(batch, system)["image"]
    black = system.spec.image.normalize(torch.zeros(1, 1, 1, 1)).item()
    for image, crop in zip(batch["image"], cropped, strict=True):
        padded = torch.full((1, 12, 12), black)
        padded[:, 2:10, 2:10] = image
        windows = [padded[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
        assert any(torch.allclose(crop, window, atol=1e-6) for window in windows)


def test_a_flip_mirrors_about_half_of_the_images(system, batch):
    reseed(1, "batch")
    flipped = Augmentation(crop=0, flip=True).on_batch(batch, system)["image"]
    same = (flipped == batch["image"]).flatten(1).all(1)
    mirrored = (flipped == batch["image"].flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 2 <= mirrored.sum() <= 14


@pytest.mark.parametrize(
    ("make", "name"), [(lambda: Mixup(alpha=0.0), "alpha"), (lambda: Augmentation(crop=-1), "crop")]
)
def test_values_out_of_range_name_their_argument(make, name):
    with pytest.raises(ValueError, match=f"^{name} "):
        make()
