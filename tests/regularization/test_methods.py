"""The defining property of each regularizer, and the closed forms that noise, penalties and stopping stand for."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dlx.data.digits import Digits
from dlx.data.function1d import Function1D
from dlx.models.layers import make_norm
from dlx.models.linear import Linear
from dlx.models.mlp import MLP
from dlx.models.vision.cnn import CNN
from dlx.random import reseed
from dlx.regularization.augmentation import Augmentation
from dlx.regularization.cutmix import CutMix
from dlx.regularization.early_stopping import EarlyStopping
from dlx.regularization.label_smoothing import LabelSmoothing
from dlx.regularization.noise import InputNoise, WeightNoise
from dlx.regularization.penalty import L1, L2
from dlx.tasks.spec import Boxes, Image, Label, LabeledImages, Mask, MaskedImages, Reals, RegressionReals, Size

COLOR = Image(channels=3, height=8, width=12, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


# CutMix and label smoothing


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_label_weight_is_the_pasted_area(system, seed):
    """Each image is one constant, so every pixel says where it comes from."""
    image = torch.arange(16.0).view(16, 1, 1, 1).expand(16, 1, 8, 8)
    batch = {"image": image, "label": torch.arange(16) % 10, "index": torch.arange(16)}
    reseed(seed, "batch")
    mixed = CutMix(probability=1.0).on_batch(batch, system)
    own = torch.arange(16.0).view(16, 1, 1, 1)
    for number in range(16):
        pasted = (mixed["image"][number] != own[number]).float().mean().item()
        other = mixed["image"][number][mixed["image"][number] != own[number]]
        expected = torch.zeros(10)
        expected[number % 10] += 1 - pasted
        if pasted:
            assert len(other.unique()) == 1
            expected[int(other[0]) % 10] += pasted
        assert mixed["label"][number].tolist() == pytest.approx(expected.tolist(), abs=1e-7)


def test_cutmix_leaves_the_stated_share_of_batches_alone(system, batch):
    mixed = 0
    for step in range(300):
        reseed(0, "batch", step)
        mixed += CutMix(probability=0.3).on_batch(batch, system)["label"].is_floating_point()
    assert mixed / 300 == pytest.approx(0.3, abs=0.07)
    assert CutMix(probability=0.0).on_batch(batch, system) is batch


def test_label_smoothing_is_torchs_and_sums_to_one(system, batch):
    smoothed = LabelSmoothing(epsilon=0.1).on_batch(batch, system)
    torch.testing.assert_close(smoothed["label"].sum(1), torch.ones(16))
    loss, _ = system.training_loss(smoothed, system.objectives()[0])
    expected = nn.functional.cross_entropy(system(batch["image"]), batch["label"], label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)


def test_smoothed_labels_have_a_finite_best_logit_gap():
    epsilon, classes = 0.1, 10
    gap = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    target = torch.full((classes,), epsilon / classes, dtype=torch.float64)
    target[0] += 1 - epsilon
    for _ in range(4000):
        logits = torch.cat([gap.view(1), torch.zeros(classes - 1, dtype=torch.float64)])
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, target), gap)
        gap = (gap - 0.5 * gradient).detach().requires_grad_()
    assert gap.item() == pytest.approx(math.log(1 + classes * (1 - epsilon) / epsilon), abs=1e-6)
    assert gap.item() == pytest.approx(4.511, abs=1e-3)


def test_soft_labels_go_one_way_and_train_accuracy_says_what_it_is(system, batch):
    objective = system.objectives()[0]
    _, hard = system.training_loss(batch, objective)
    predicted = system(batch["image"]).argmax(1)
    assert hard["accuracy"] == (predicted == batch["label"]).float().mean()
    smoothed = LabelSmoothing(epsilon=0.5).on_batch(batch, system)
    _, soft = system.training_loss(smoothed, objective)
    assert soft.keys() == {"soft_accuracy"}
    assert soft["soft_accuracy"].item() == pytest.approx(0.5 * hard["accuracy"].item() + 0.05)


# Penalties


def test_l2_on_the_loss_is_torchs_weight_decay(system, batch):
    """With SGD: (strength / 2) |w|^2 has the gradient strength w; biases are spared."""
    other = MLP(spec=Digits().spec)
    other.load_state_dict(system.state_dict())
    penalty = L2(strength=0.1)
    loss, _ = system.training_loss(batch, system.objectives()[0])
    (loss + penalty.penalty(system)).backward()
    torch.optim.SGD(system.parameters(), lr=0.1).step()
    other.training_loss(batch, other.objectives()[0])[0].backward()
    decayed = [p for p in other.parameters() if p.dim() > 1]
    rest = [p for p in other.parameters() if p.dim() == 1]
    torch.optim.SGD([{"params": decayed, "weight_decay": 0.1}, {"params": rest}], lr=0.1).step()
    for a, b in zip(system.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)


def test_decoupled_forms_act_after_the_step(system):
    before = {name: p.detach().clone() for name, p in system.named_parameters()}
    L2(strength=0.5, form="decoupled").after_step(system, lr=0.1)
    for name, p in system.named_parameters():
        torch.testing.assert_close(p, before[name] * (0.95 if "weight" in name else 1.0))
    before = {name: p.detach().clone() for name, p in system.named_parameters()}
    L1(strength=0.2, form="decoupled", spare=()).after_step(system, lr=0.1)
    for name, p in system.named_parameters():
        torch.testing.assert_close(p, before[name].sign() * (before[name].abs() - 0.02).clamp(min=0))
        assert (p == 0).any() or p.numel() < 20


def orthonormal(samples=40, features=5):
    """A regression whose design is orthonormal: X'X = I. Squared loss 1/2 |y - Xw|^2."""
    generator = torch.Generator().manual_seed(0)
    design = torch.linalg.qr(torch.randn(samples, features, generator=generator, dtype=torch.float64)).Q
    truth = torch.tensor([2.0, -1.0, 0.3, 0.05, 0.0], dtype=torch.float64)
    return design, design @ truth + 0.01 * torch.randn(samples, generator=generator, dtype=torch.float64)


class Line(Linear):
    def __init__(self, features):
        super().__init__(spec=RegressionReals(features=Reals(size=features), target=Reals(size=1)))
        self.double()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)


@pytest.mark.parametrize("form", ["loss", "decoupled"])
def test_penalties_end_in_their_closed_forms(form):
    """Ridge: w / (1 + s). Lasso: the soft threshold of w at s (proximal form; zeros are exact)."""
    design, target = orthonormal()
    least_squares = design.T @ target
    strength, lr = 0.2, 0.1
    for kind, expected in (
        (L2, least_squares / (1 + strength)),
        (L1, least_squares.sign() * (least_squares.abs() - strength).clamp(min=0)),
    ):
        system, penalty = Line(5), kind(strength=strength, form=form)
        w = system.linear.weight
        for step in range(3000):
            now = lr / (1 + 0.05 * step) if (form, kind) == ("loss", L1) else lr  # a subgradient needs smaller steps
            loss = 0.5 * (target - design @ w[0]).square().sum()
            loss = loss + penalty.penalty(system) if penalty.defines("penalty") else loss
            w.grad = torch.autograd.grad(loss, w)[0]
            with torch.no_grad():
                w -= now * w.grad
            if penalty.defines("after_step"):
                penalty.after_step(system, now)
        tolerance = 2e-3 if (form, kind) == ("loss", L1) else 0.03 if (form, kind) == ("decoupled", L2) else 1e-8
        assert (w[0] - expected).abs().max() < tolerance, kind
        if kind is L1:
            assert (w[0][-2:] == 0).all() == (form == "decoupled")


# Noise


def test_input_noise_is_ridge():
    """E |y - (x + e) w|^2 = |y - x w|^2 + std^2 |w|^2 per sample (Bishop 1995), by Monte Carlo to 2 %."""
    system, std = Line(5), 0.5
    with torch.no_grad():
        system.linear.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 0.0, 1.5]]))
    reseed(1, "test")
    features, target = torch.randn(64, 5, dtype=torch.float64), torch.randn(64, 1, dtype=torch.float64)
    batch = {"features": features, "target": target}
    clean, _ = system.training_loss(batch, system.objectives()[0])
    noisy = []
    for step in range(2000):
        reseed(1, "batch", step)
        noisy.append(system.training_loss(InputNoise(std=std).on_batch(batch, system), None)[0].item())
    expected = clean.item() + std**2 * system.linear.weight.square().sum().item()
    assert sum(noisy) / len(noisy) == pytest.approx(expected, rel=0.02)


def test_dropout_on_the_inputs_of_a_line_is_ridge():
    """E |y - (m x / (1 - p)) w|^2 = |y - x w|^2 + p / (1 - p) sum_j mean(x_j^2) w_j^2."""
    reseed(2, "test")
    x, y, w, p = torch.randn(64, 5), torch.randn(64), torch.tensor([1.0, -2.0, 0.5, 0.0, 1.5]), 0.3
    expected = (y - x @ w).square().mean() + p / (1 - p) * (x.square().mean(0) * w.square()).sum()
    drawn = [(y - nn.functional.dropout(x, p) @ w).square().mean() for _ in range(4000)]
    assert torch.stack(drawn).mean().item() == pytest.approx(expected.item(), rel=0.02)


def test_weight_noise_penalizes_the_outputs_sensitivity():
    """For squared loss and small std: + std^2 |d output / d w|^2, here std^2 (|x|^2 + 1) with the bias."""
    system, std = Line(5), 0.1
    reseed(3, "test")
    features, target = torch.randn(64, 5, dtype=torch.float64), torch.randn(64, 1, dtype=torch.float64)
    batch = {"features": features, "target": target}
    clean, _ = system.training_loss(batch, None)
    noisy = []
    for step in range(4000):
        reseed(3, "noise", step)
        with WeightNoise(std=std).around_loss(system):
            noisy.append(system.training_loss(batch, None)[0].item())
    extra = std**2 * (features.square().sum(1).mean().item() + 1)
    assert sum(noisy) / len(noisy) - clean.item() == pytest.approx(extra, rel=0.02)


def test_weight_noise_leaves_the_weights_as_they_were(system, batch):
    before = {name: p.detach().clone() for name, p in system.named_parameters()}
    with WeightNoise(std=0.5).around_loss(system):
        assert not any(torch.equal(p, before[name]) for name, p in system.named_parameters())
        system.training_loss(batch, system.objectives()[0])[0].backward()
    assert all(torch.equal(p, before[name]) for name, p in system.named_parameters())
    assert all(p.grad is not None for p in system.parameters())


# Early stopping


def curve(values):
    return [{"step": float(number), "val/loss": value} for number, value in enumerate(values)]


def stops_at(stopping, values, monitor=("val/loss", "min")):
    return next((n for n in range(1, len(values) + 1) if stopping.on_validation(curve(values)[:n], monitor)), None)


def test_early_stopping_waits_for_patience_and_min_delta():
    values = [1, 0.9, 0.8, 0.85, 0.9, 0.95]
    assert stops_at(EarlyStopping(patience=2), values) == 5
    assert stops_at(EarlyStopping(patience=3), values) == 6
    assert stops_at(EarlyStopping(patience=4), values) is None
    assert stops_at(EarlyStopping(patience=2, min_delta=0.15), values) == 5
    assert stops_at(EarlyStopping(patience=2, min_delta=0.3), values) == 3
    assert stops_at(EarlyStopping(patience=2), [-v for v in values], ("val/loss", "max")) == 5
    assert stops_at(EarlyStopping(patience=9, target=0.8), values) == 3


def test_early_stopping_keeps_the_best_weights_by_its_own_monitor(dlx_call):
    import json
    from pathlib import Path

    from dlx.runs.metrics import read_metrics

    words = ["model=mlp", "optim.lr=0.03", "scheduler=constant", "data.subset=100", "trainer.epochs=200"]
    words += ["reg=[early_stopping]", "reg.early_stopping.monitor=val/loss:min", "reg.early_stopping.patience=5"]
    run = Path(json.loads(dlx_call("train", *words, "--json").out)["run"])
    losses = [row["val/loss"] for row in read_metrics(run / "metrics.jsonl") if "val/loss" in row]
    best = min(losses)
    assert len(losses) < 200
    assert len(losses) - 1 - losses.index(best) == 5
    judged = json.loads(dlx_call("eval", "@last", "--split", "val", "--json").out)["metrics"]["val/loss"]
    assert judged == pytest.approx(best, rel=1e-6)


def test_stopping_early_is_ridge():
    """Gradient descent from 0 for t steps shrinks direction i to 1 - (1 - lr h)^t; ridge with strength 1 / (lr t) to
    h / (h + 1 / (lr t)): alike where lr t h is far from 1, and never further apart than 0.21 (at lr t h = 1.8)."""
    lr, steps = 0.01, 100
    for h in (0.01, 0.1, 1.0, 10.0):
        stopped = 1 - (1 - lr * h) ** steps
        ridge = h / (h + 1 / (lr * steps))
        assert abs(stopped - ridge) < 0.21
        assert stopped == pytest.approx(ridge, abs=0.01) or 0.1 < lr * steps * h < 20


# Normalization


@pytest.mark.parametrize("dim", [0, 2])
def test_batch_norm_normalizes_with_batch_and_then_running_statistics(dim):
    """Normalized with the biased variance, remembered with the unbiased one, new = 0.9 old + 0.1 batch."""
    norm = make_norm("batch", 4, dim=dim)
    reseed(0, "test")
    x = torch.randn(32, 4, *[3] * dim) * 3 + 1
    axes = (0, *range(2, 2 + dim))
    shape = (4, *[1] * dim)
    mean, var = x.mean(axes), x.var(axes, unbiased=False)
    expected = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var(axes, unbiased=True))
    norm.eval()
    running = [s.view(shape) for s in (norm.running_mean, norm.running_var)]
    torch.testing.assert_close(norm(x), (x - running[0]) / (running[1] + 1e-5).sqrt(), atol=1e-5, rtol=1e-5)


def test_batch_norm_does_not_see_the_scale_of_the_weights_before_it():
    system = MLP(spec=Digits().spec, norm="batch")
    x = torch.randn(16, 1, 8, 8)
    before = system(x)
    with torch.no_grad():
        system.layers[0].weight *= 7
        system.layers[0].bias *= 7
    torch.testing.assert_close(system(x), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
@pytest.mark.parametrize("model", [MLP, CNN])
def test_every_norm_is_there_and_learns(model, norm, batch):
    system = model(spec=Digits().spec, norm=norm)
    system.training_loss(batch, None)[0].backward()
    assert all(p.grad is not None for p in system.parameters())
    assert any(isinstance(m, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)) for m in system.modules())
    with pytest.raises(ValueError, match=r"^norm must be one of none, batch, layer, group, got 'bach'"):
        model(spec=Digits().spec, norm="bach")


# Augmentation


def image_of(entry, size=64):
    reseed(5, "test")
    return entry.normalize(torch.rand(size, *entry.shape) * entry.scale)


def plain(channels, height, width):
    return Image(
        channels=channels, height=height, width=width, mean=(0.0,) * channels, std=(1.0,) * channels, scale=1.0
    )


def augment(entry, image, **arguments):
    system = MLP(spec=LabeledImages(image=entry, label=Label(classes=("a", "b"))))
    reseed(6, "batch")
    return Augmentation(**{"crop": 0, "flip": False, **arguments}).on_batch({"image": image}, system)["image"]


def test_nothing_chosen_changes_nothing():
    image = image_of(COLOR)
    assert torch.equal(augment(COLOR, image), image)


def test_a_rotation_by_zero_and_a_scale_of_one_change_nothing():
    image = image_of(COLOR)
    torch.testing.assert_close(augment(COLOR, image, rotate=1e-6, scale=(1, 1)), image, atol=1e-3, rtol=0)


def test_an_image_is_turned_about_its_centre_as_pixels_lie():
    """A disc in a wide image stays where and as it is; a bar does not."""
    entry = plain(1, 33, 65)
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(65.0) - 32, indexing="ij")
    disc = torch.sigmoid(10 - (x.square() + y.square()).sqrt()).expand(32, 1, 33, 65)
    assert (augment(entry, disc, rotate=180) - disc).abs().max() < 0.1
    bar = ((y.abs() < 3) & (x.abs() < 14)).float().expand(32, 1, 33, 65)
    turned = augment(entry, bar, rotate=180)
    assert (turned - bar).abs().amax((1, 2, 3)).min() > 0.2
    assert turned.sum((1, 2, 3)).tolist() == pytest.approx(bar.sum((1, 2, 3)).tolist(), rel=0.03)


def test_scale_and_translate_stay_in_their_range():
    entry = plain(1, 64, 64)
    square = torch.zeros(200, 1, 64, 64)
    square[..., 22:42, 22:42] = 1
    area = augment(entry, square, scale=(0.5, 1.5)).sum((1, 2, 3)) / 400
    assert 0.2 < area.min() < 0.4
    assert 1.8 < area.max() < 2.4
    moved = augment(entry, square, translate=0.25)
    where = (moved * torch.arange(64.0)).sum((1, 2, 3)) / moved.sum((1, 2, 3))
    assert where.min() == pytest.approx(31.5 - 16, abs=1)
    assert where.max() == pytest.approx(31.5 + 16, abs=1)


def test_a_resized_crop_shows_a_window_inside_the_image():
    entry = plain(2, 32, 32)
    ramp = torch.linspace(1, 2, 32)
    image = torch.stack([ramp.expand(32, 32), ramp.expand(32, 32).T]).expand(200, 2, 32, 32)
    cropped = augment(entry, image, resized_crop=(0.25, 0.25))[..., 1:-1, 1:-1]
    assert cropped.min() >= 1  # never from outside
    width, height = cropped[:, 0].flatten(1), cropped[:, 1].flatten(1)
    sides = torch.stack([v.amax(1) - v.amin(1) for v in (width, height)]) * 32 / 30
    assert (sides.prod(0) - 0.25).abs().max() < 0.03
    assert (sides[0] / sides[1]).min() > 0.7
    assert (sides[0] / sides[1]).max() < 1.4


def test_color_keeps_values_in_range_and_gray_stays_gray():
    image = image_of(COLOR)
    changed = COLOR.denormalize(augment(COLOR, image, color=0.8))
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6
    assert (changed - COLOR.denormalize(image)).abs().mean() > 0.05
    gray = COLOR.normalize(torch.rand(8, 1, 8, 12).expand(8, 3, 8, 12) * COLOR.scale)
    spread = COLOR.denormalize(augment(COLOR, gray, color=0.8))
    torch.testing.assert_close(spread.amax(1), spread.amin(1), atol=1e-5, rtol=0)


def test_cutout_blacks_one_square():
    image = COLOR.normalize(torch.full((200, 3, 8, 12), 100.0))
    cut = COLOR.denormalize(augment(COLOR, image, cutout=4))
    black = (cut.abs() < 1e-6).all(1)
    assert black.sum((1, 2)).max() == 16
    assert black.sum((1, 2)).min() >= 4
    assert (black | ((cut - 100 / 255).abs() < 1e-5).all(1)).all()


# All of them


def test_what_cannot_work_says_so(dlx_call):
    for name, lacks in {"augmentation": "images", "cutmix": "images", "label_smoothing": "class labels"}.items():
        call = dlx_call("train", "model=mlp", "data=function1d", f"reg=[{name}]")
        assert call.code == 2, name
        assert f"regularization.{name}: needs {lacks}, and MLP reads none" in call.err
    assert "conf/regularization/batch_norm.yaml" in dlx_call("train", "model=linear", "reg=[batch_norm]").err


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: CutMix(alpha=0.0), "alpha"),
        (lambda: CutMix(probability=1.1), "probability"),
        (lambda: LabelSmoothing(epsilon=1.0), "epsilon"),
        (lambda: InputNoise(std=-1.0), "std"),
        (lambda: WeightNoise(std=-1.0), "std"),
        (lambda: L1(strength=-1.0), "strength"),
        (lambda: L2(strength=1.0, form="lost"), "form"),
        (lambda: L2(strength=1.0, spare=("weights",)), "spare"),
        (lambda: EarlyStopping(patience=0), "patience"),
        (lambda: EarlyStopping(monitor="val/loss"), "monitor"),
        (lambda: Augmentation(color=2.0), "color"),
        (lambda: Augmentation(scale=(2.0, 1.0)), "scale"),
        (lambda: Augmentation(resized_crop=(0.5, 1.5)), "resized_crop"),
    ],
)
def test_values_out_of_range_name_their_argument(make, name):
    with pytest.raises(ValueError, match=f"^{name} "):
        make()


ALL = "augmentation,input_noise,weight_noise,mixup,cutmix,label_smoothing,l1,l2,dropout,batch_norm,early_stopping"


def test_any_combination_trains(dlx_call, tiny, only_run):
    words = [word for word in tiny if not word.startswith("model")]
    call = dlx_call(
        "train", "model=cnn", *words, f"reg=[{ALL},weight_decay,gradient_clip,ema]", "reg.augmentation.crop=1"
    )
    assert call.code == 0, call.err
    config = (only_run() / "config.yaml").read_text()
    for line in ("norm: batch", "dropout: 0.5", "weight_decay: 0.01", "clip_norm: 1.0", "ema: 0.999"):
        assert line in config
    assert "soft_accuracy" in (only_run() / "metrics.jsonl").read_text()


def test_mixup_and_cutmix_together_throw_a_coin(system, batch):
    from dlx.regularization.mixup import Mixup
    from dlx.training.loop import batch_hooks

    parts = {"cutmix": CutMix(), "smooth": LabelSmoothing(), "mixup": Mixup(), "noise": InputNoise()}
    groups = [{type(part).__name__ for part in group} for group in batch_hooks(parts.values())]
    assert groups == [{"InputNoise"}, {"CutMix", "Mixup"}, {"LabelSmoothing"}]


def test_the_function_dataset_takes_mixup(dlx_call):
    assert Function1D().spec.features.shape == (1,)
    call = dlx_call("train", "model=mlp", "data=function1d", "reg=[mixup,input_noise,l2]", "trainer.max_steps=10")
    assert call.code == 0, call.err


def test_early_stopping_where_nothing_is_monitored_is_refused(system):
    from dlx.tasks.system import System
    from dlx.training.trainer import Trainer

    class Judged(System):
        """It is evaluated, and says of nothing that it is the best."""

        def evaluate(self, batch):
            return {}

    stopping = {"early_stopping": EarlyStopping()}
    with pytest.raises(ValueError, match=r"^monitor must be given for early_stopping"):
        Trainer().monitored_of(Judged(), stopping)
    with pytest.raises(ValueError, match=r"^monitor val/loss: System is not evaluated"):
        Trainer(monitor="val/loss:min").monitored_of(System(), stopping)
    assert Trainer().monitored_of(Judged(), {}) is None
    assert Trainer(monitor="val/loss:min").monitored_of(Judged(), stopping) == ("val/loss", "min")
    assert Trainer().monitored_of(system, stopping) == ("val/accuracy", "max")
    own = {"early_stopping": EarlyStopping(monitor="val/loss:min")}
    assert Trainer().monitored_of(system, own) == ("val/loss", "min")


@dataclass(frozen=True, kw_only=True)
class Scenes(MaskedImages):
    boxes: Boxes


@dataclass(frozen=True, kw_only=True)
class SizedScenes(Scenes):
    size: Size


OFF = {"crop": 0, "flip": False}
MOVES = {
    "crop": {"crop": 3, "flip": False}, "flip": {"crop": 0}, "rotate": {**OFF, "rotate": 20.0},
    "window": {**OFF, "resized_crop": (0.4, 0.9), "translate": 0.1, "scale": (0.8, 1.3)},
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
def test_an_image_with_padding_moves_as_it_does_without(move):
    torch.manual_seed(0)
    image = Image(channels=3, height=12, width=16, mean=(0.4,) * 3, std=(0.3,) * 3)
    entries = {"boxes": Boxes(classes=("a",), most=1), "mask": Mask(classes=("a", "b"), height=12, width=16)}
    alone = SimpleNamespace(spec=Scenes(image=image, **entries))
    padded = SimpleNamespace(spec=SizedScenes(image=image, size=Size(), **entries))
    small = {
        "image": torch.randn(64, 3, 8, 10), "mask": torch.randint(2, (64, 8, 10)),
        "boxes": torch.tensor([[[2.0, 1, 8, 6, 0]]]).expand(64, 1, 5),
    }  # fmt: skip
    wide = {
        "image": nn.functional.pad(small["image"], (0, 6, 0, 4)), "boxes": small["boxes"],
        "mask": nn.functional.pad(small["mask"], (0, 6, 0, 4), value=255),
        "size": torch.tensor([[8, 10]]).expand(64, 2),
    }  # fmt: skip
    found = []
    for batch, system in ((small, alone), (wide, padded)):
        torch.manual_seed(1)
        found.append(Augmentation(**MOVES[move]).on_batch(batch, system))
    expected, moved = found
    torch.testing.assert_close(moved["image"][..., :8, :10], expected["image"], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved["boxes"], expected["boxes"], atol=1e-4, rtol=0)
    assert (moved["mask"][:, :8, :10] == expected["mask"]).float().mean() > 0.99  # halves may round either way
    assert (moved["image"][..., 8:, :] == 0).all()
    assert (moved["image"][..., 10:] == 0).all()
    assert (moved["mask"][:, 8:] == 255).all()
