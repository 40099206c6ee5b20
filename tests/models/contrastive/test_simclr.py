"""SimCLR: the loss against a plain loop and in closed form, over processes, without labels; figures and features."""

import json
import math
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from run_ends import assert_same_end

from dlx.models.contrastive.simclr import NEGATIVES, SimCLR, nt_xent
from dlx.models.vision.cnn import CNN
from dlx.models.vision.resnet import ResNet
from dlx.regularization.simclr_views import SimCLRViews
from dlx.tasks.spec import Image, Images, Label, LabeledImages

F64 = torch.float64
IMAGE = Image(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3)
LABELED = LabeledImages(image=IMAGE, label=Label(classes=("a", "b", "c")))
PLAIN = Images(image=IMAGE)
TINY = (
    "model=simclr", "model.encoder={name: cnn}", "data.samples=120", "data.side=16", "data.batch_size=16",
    "trainer.max_steps=6", "trainer.log_every=1", "trainer.validate_every=3",
)  # fmt: skip


def plain_loop(one, two, temperature):
    """Equation 1 and algorithm 1 of the paper, pair by pair: views 2k - 1 and 2k are of one image."""
    z = [view / view.norm() for pair in zip(one, two, strict=True) for view in pair]

    def loss(i, j):
        others = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(float(z[i] @ z[j]) / temperature) / others)

    count = len(z) // 2
    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(count)) / (2 * count)


def make(spec=LABELED, **given):
    encoder = given.pop("encoder", None) or CNN(spec=PLAIN, norm="batch")
    return SimCLR(spec=spec, encoder=encoder, augmentation=SimCLRViews(blur=0.0), **given)


def batch_of(count=16, seed=0):
    rng = torch.Generator().manual_seed(seed)
    image, image_2 = torch.randn(2, count, 3, 8, 8, generator=rng)
    return {"image": image, "image_2": image_2, "label": torch.arange(count) % 3, "index": torch.arange(count)}


# The loss.


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_loss_is_that_of_a_plain_loop(count, temperature):
    one, two = torch.randn(2, count, 5)
    found = nt_xent(one, two, temperature)[0].item()
    assert found == pytest.approx(plain_loop(one.double(), two.double(), temperature), rel=1e-4)


@pytest.mark.parametrize("wrong", ["neighbour", "same view", "itself among the others"])
def test_a_positive_that_is_mistaken_would_be_seen(wrong):
    """The plain loop tells the loss from those of three common mistakes."""
    one, two = torch.randn(2, 6, 5, dtype=F64)
    z = F.normalize(torch.cat([one, two]), dim=1)
    score = z @ z.T / 0.5
    if wrong != "itself among the others":
        score = score.fill_diagonal_(float("-inf"))
    shift = {"neighbour": 7, "same view": 1}.get(wrong, 6)
    mistaken = F.cross_entropy(score, torch.arange(12).roll(-shift)).item()
    assert abs(mistaken - plain_loop(one, two, 0.5)) > 0.01
    assert nt_xent(one, two, 0.5)[0].item() == pytest.approx(plain_loop(one, two, 0.5), rel=1e-5)


@pytest.mark.parametrize(("count", "expected"), [(128, 5.541), (256, 6.236)])
def test_views_that_are_equally_near_cost_the_logarithm_of_the_others(count, expected):
    same = torch.ones(count, 4)
    loss, _ = nt_xent(same, same, 0.5)
    assert loss.item() == pytest.approx(math.log(2 * count - 1), rel=1e-5)
    assert loss.item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_aligned_pairs_among_orthogonal_others(temperature):
    count = 7
    views = torch.eye(count) * torch.linspace(0.1, 9, count).unsqueeze(1)  # their lengths do not matter
    loss, nearest = nt_xent(views, views, temperature)
    assert loss.item() == pytest.approx(math.log(1 + (2 * count - 2) * math.exp(-1 / temperature)), abs=1e-6)
    assert nearest == 1


def test_swapped_views_have_swapped_gradients():
    one, two = torch.randn(2, 6, 5, dtype=F64)
    pairs = []
    for first, second in ((one, two), (two, one)):
        views = first.clone().requires_grad_(), second.clone().requires_grad_()
        pairs.append(torch.autograd.grad(nt_xent(*views, 0.5)[0], views))
    torch.testing.assert_close(pairs[0][0], pairs[1][1])
    torch.testing.assert_close(pairs[0][1], pairs[1][0])


def test_half_precision_computes_the_loss_in_float32():
    one, two = torch.randn(2, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(one, two, 0.05)[0]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(plain_loop(one.double(), two.double(), 0.05), rel=1e-4)


def test_before_training_the_loss_is_near_that_of_equal_views():
    """At a high temperature, where all cosines are near 0 beside it."""
    system = make(temperature=100.0)
    loss = system.training_loss(batch_of(64), system.objectives()[0])[0].item()
    assert loss == pytest.approx(math.log(127), abs=0.02)


# The system.


def test_the_papers_network_has_its_parameters():
    """ResNet-50 without its classifier, 2048 to 2048 with a batch norm, and 2048 to 128."""
    image = Image(channels=3, height=224, width=224, mean=(0.5,) * 3, std=(0.25,) * 3)
    with torch.device("meta"):
        system = SimCLR(
            spec=Images(image=image), encoder=ResNet(spec=Images(image=image), depth=50), augmentation=SimCLRViews()
        )
    head = 2048 * 2048 + 2 * 2048 + 2048 * 128
    assert sum(p.numel() for p in system.encoder.parameters()) == 23_508_032
    assert sum(p.numel() for p in system.projection.parameters()) == head
    assert sum(p.numel() for p in system.parameters()) == 23_508_032 + head


@pytest.mark.parametrize("projection", ["nonlinear", "linear", "none"])
@pytest.mark.parametrize("encoder", [CNN, partial(CNN, norm="batch"), ResNet])
def test_every_parameter_gets_a_gradient(projection, encoder):
    system = make(projection=projection, encoder=encoder(spec=PLAIN))
    system.training_loss(batch_of(), system.objectives()[0])[0].backward()
    assert [name for name, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_features_are_those_before_the_head():
    system = make().eval()
    batch = batch_of()
    assert torch.equal(system.embed(batch), system.encoder.embed(batch))
    assert system.embed(batch).shape == (16, 64)


def test_an_answer_is_the_features():
    system, batch = make().eval(), batch_of(2)
    answers = system.answer(batch, system.predict(batch))
    assert [len(answer.json["features"]) for answer in answers] == [64, 64]
    assert answers[0].json["features"] == system.embed(batch)[0].tolist()
    assert answers[0].line.startswith("64 features of length")


def test_it_learns_pairs_and_labels_play_no_part():
    """One batch by heart; the same with other labels, and without."""
    ends = []
    for labels in (torch.arange(16) % 3, torch.zeros(16, dtype=torch.int64), None):
        torch.manual_seed(0)
        system = make(LABELED if labels is not None else PLAIN, temperature=0.5)
        batch = {**batch_of(), "label": labels}
        optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
        for _ in range(60):
            loss, logs = system.training_loss(batch, system.objectives()[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(loss.item())
        assert logs["pair_accuracy"] == 1
    least = math.log(1 + 30 * math.exp(-2.0))  # pairs that are one, others at right angles
    assert ends[0] < least + 0.1
    assert ends[0] == ends[1] == ends[2]


# What is measured.


class Bank:
    """A loader of training samples."""

    def __init__(self, batch, size=7):
        self.batch, self.size = batch, size

    def eval_batches(self):
        count = len(self.batch["index"])
        for start in range(0, count, self.size):
            yield {name: value[start : start + self.size] for name, value in self.batch.items()}


@torch.no_grad()
def measured(system, batch, bank, size):
    system.eval()
    system.before_evaluation(Bank(bank), None)
    total = {}
    for part in Bank(batch, size).eval_batches():
        for name, value in system.evaluate(part).items():
            total[name] = total.get(name, 0) + value
    return system.metrics(total)


def samples(count, seed, start=0):
    """Images of three classes: each has a color of its own that it is more or less of."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 3
    image = 0.3 * torch.randn(count, 3, 8, 8, generator=rng)
    image[torch.arange(count), label] += 1.5
    return {"image": image, "label": label, "index": torch.arange(count) + start}


def test_no_figure_depends_on_the_batch():
    system, bank, batch = make(), samples(60, 0), samples(20, 1, start=60)
    found = [measured(system, batch, bank, size) for size in (20, 7, 1)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)
    assert set(found[0]) == {"knn_accuracy", "loss", "pair_accuracy"} == set(system.metric_names)


def test_neighbours_tell_classes_that_the_features_hold():
    system = make(neighbours=5)
    assert measured(system, samples(30, 1), samples(60, 0), 10)["knn_accuracy"] == 1
    wrong = {**samples(60, 0), "label": torch.randint(3, (60,), generator=torch.Generator().manual_seed(0))}
    assert measured(system, samples(30, 1), wrong, 10)["knn_accuracy"] < 0.7


def test_near_neighbours_count_more():
    """Two far ones of class 1 against one near one of class 2."""
    system = make(neighbours=3)
    h = F.normalize(torch.tensor([[1.0, 0.1], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]), dim=1)
    system._bank = {"h": h, "label": torch.tensor([2, 1, 1, 0])}
    assert system.vote(torch.tensor([[1.0, 0.0]])).tolist() == [2]


def test_the_measured_loss_of_equal_views_is_the_logarithm_of_what_there_is():
    system = make(encoder=None)
    for p in system.projection.parameters():
        torch.nn.init.zeros_(p)
    found = measured(system, samples(20, 1, start=60), samples(60, 0), 20)
    assert found["loss"] == pytest.approx(math.log(61), rel=1e-5)
    assert NEGATIVES >= 60


def test_without_labels_the_loss_says_what_is_best():
    system = make(PLAIN)
    assert system.monitor == ("val/loss", "min")
    assert system.metric_names == ("loss", "pair_accuracy")
    batch = {name: value for name, value in samples(20, 1).items() if name != "label"}
    bank = {name: value for name, value in samples(60, 0).items() if name != "label"}
    assert set(measured(system, batch, bank, 10)) == {"loss", "pair_accuracy"}
    assert make(LABELED).monitor == ("val/knn_accuracy", "max")


def test_pictures_show_views_and_neighbours():
    system = make()
    measured(system, samples(20, 1), samples(60, 0), 10)
    found = system.showcase(samples(8, 2))
    assert set(found) == {"views", "neighbours"}
    assert all(picture.shape[2] == 3 for picture in found.values())
    assert set(make().showcase(samples(8, 2))) == {"views"}  # before an evaluation


@pytest.mark.parametrize(
    "bad",
    [{"temperature": 0.0}, {"dim": 0}, {"neighbours": 0}, {"projection": "deep"}],
)
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        make(**bad)


# Through the command line.


def test_a_resumed_training_ends_with_the_same_bits(dlx_call, sigterm_at):
    def run(*command, code=0):
        call = dlx_call(*command)
        assert call.code == code, call.err
        return Path(json.loads(call.out.splitlines()[-1])["run"])

    whole = run("train", *TINY, "--json")
    with sigterm_at(4):
        cut = run("train", *TINY, "--json", code=143)
    assert_same_end(run("resume", str(cut), "--json"), whole)


def test_features_are_probed_and_fine_tuned(dlx_call):
    words = [word.replace("{name: cnn}", "{name: resnet, depth: 20}") for word in TINY]
    call = dlx_call("train", *words, "name=views", "--json")
    assert call.code == 0, call.err
    assert {"test/knn_accuracy", "test/loss", "test/pair_accuracy"} <= set(json.loads(call.out)["metrics"])
    call = dlx_call("eval", "views", "--analysis", "probe", "samples=20", "--json")
    assert call.code == 0, call.err
    assert "probe_test/accuracy" in call.out
    fine = ("model=resnet", "model.depth=20", "data=recipe/simclr", "data.samples=120", "data.side=16")
    call = dlx_call("train", *fine, "data.batch_size=16", "trainer.max_steps=2", "trainer.init_from=views:encoder")
    assert call.code == 0, call.err
    assert re.search(r"init_from +\d+ tensors of views:encoder; anew: fc.weight, fc.bias", call.err), call.err


def test_images_without_labels_are_learned_from_and_the_loss_is_measured(dlx_call, here):
    (here / "photos").mkdir()
    pixels = torch.randint(256, (40, 16, 16, 3), dtype=torch.uint8)
    for number, photo in enumerate(pixels.numpy()):
        PIL.Image.fromarray(photo).save(here / "photos" / f"{number}.png")
        (here / "photos" / f"{number}.txt").write_text("a photo")
    words = [word for word in TINY if word not in ("data.samples=120", "data.side=16", "data.batch_size=16")]
    data = ("data=captioned_folder", "data.path=photos", "data.size=16", "data.batch_size=8")
    call = dlx_call("train", *words, *data, "name=plain", "--json")
    assert call.code == 0, call.err
    metrics = json.loads(call.out)["metrics"]
    assert {"test/loss", "test/pair_accuracy"} <= set(metrics)
    assert "test/knn_accuracy" not in metrics
    call = dlx_call("eval", "plain", "--analysis", "probe")
    assert call.code == 2
    assert "needs class labels" in call.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trainer.accumulate=2"], "trainer.accumulate: must be 1: SimCLR compares the samples of a whole batch"),
        (["data.batch_size=1"], "dataset.batch_size: must be at least 2: SimCLR compares the samples of a batch"),
        (["reg=[augmentation]"], "the model's augmentation says how views are made"),
        (["model.temperature=0"], "model.temperature: must be above 0"),
        (["model.augmentation.crop=[0.5,2]"], "model.augmentation.crop: must be a range within (0, 1]"),
        (["model.augmentation.name=augmentation"], "Augmentation is not a subclass of SimCLRViews"),
        (["data=digits", "model.encoder.norm=btch"], "model.encoder.norm: must be one of"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(words, text, dlx_call):
    keys = {word.partition("=")[0] for word in words}
    given = [
        word
        for word in TINY
        if word.partition("=")[0] not in keys and ("data=digits" not in words or "data." not in word)
    ]
    call = dlx_call("train", *given, *words)
    assert call.code == 2, call.err
    assert text in call.err
    assert not Path("outputs").exists()


PROCESSES = """
import torch, torch.distributed as dist
from dlx.models.contrastive.simclr import SimCLR
from dlx.models.vision.resnet import ResNet
from dlx.regularization.simclr_views import SimCLRViews
from dlx.tasks.spec import Image, Images
torch.set_num_threads(1)
image = Image(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3)
spec = Images(image=image)
torch.manual_seed(0)
system = SimCLR(spec=spec, encoder=ResNet(spec=spec, depth=20), augmentation=SimCLRViews(), temperature=0.5).double()
batch = {name: torch.randn(8, 3, 8, 8, dtype=torch.float64) for name in system.views}
def step(rows):
    system.zero_grad()
    loss, logs = system.training_loss({name: x[rows] for name, x in batch.items()}, system.objectives()[0])
    loss.backward()
    state = [b.clone() for name, b in system.named_buffers() if "running" in name]
    return loss.detach(), logs["pair_accuracy"], [p.grad.clone() for p in system.parameters()], state
start = {name: value.clone() for name, value in system.state_dict().items()}
alone = step(slice(0, 8))
system.load_state_dict(start)
dist.init_process_group("gloo")
rank = dist.get_rank()
together = step(slice(4 * rank, 4 * rank + 4))
for part in (together[0], together[1], *together[2]):
    dist.all_reduce(part)
    part /= 2
def same(a, b):
    return torch.allclose(a, b, atol=2e-5, rtol=2e-4)
assert same(together[0], alone[0]), (together[0], alone[0])
assert same(together[1], alone[1])
assert all(same(a, b) for a, b in zip(together[2], alone[2], strict=True)), "gradients"
assert all(same(a, b) for a, b in zip(together[3], alone[3], strict=True)), "running statistics"
print("same", rank, flush=True)
dist.barrier()
dist.destroy_process_group()  # one that ends first resets the other's connection
"""


def test_two_processes_have_the_gradient_of_one(here):
    """Of a ResNet with batch norms: loss, gradients and running statistics."""
    Path("processes.py").write_text(PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "processes.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("same") == 2


@pytest.mark.slow
def test_ten_labels_a_class_are_worth_more_with_its_features(dlx_call):
    """The bar of the claim, at the size of its page: the mean of three seeds, against both others."""
    call = dlx_call("train", "experiment=contrastive_features", "experiment.labels=[1,10]", "--json")
    assert call.code == 0, call.err
    measured = json.loads(call.out)["metrics"]
    mean = {name: sum(measured[name]["10"]) / 3 for name in ("simclr", "random", "alone")}
    print(mean, measured["knn"])  # noqa: T201
    assert mean["simclr"] > max(mean["random"], mean["alone"]) + 0.1
    assert min(measured["knn"]) > 0.9


@pytest.mark.slow
def test_the_default_learns_the_kinds_without_labels(dlx_call):
    call = dlx_call("train", "model=simclr", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/knn_accuracy"] > 0.9
