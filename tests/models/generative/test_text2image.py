"""Text2Image: parameter counts, GAN-CLS and GAN-INT by hand, wrong captions, whose turn moves what, prompts."""

import json
import math
import statistics

import pytest
import torch
import torch.nn.functional as F

from dlx.config import build, compose
from dlx.data.captioned_shapes import CaptionedShapes
from dlx.models.generative.text2image import Text2Image, wrong_captions
from dlx.tasks.spec import CaptionedImages, Image, Tokens

TINY = {"latent_dim": 3, "text_dim": 8, "generator_width": 4, "discriminator_width": 4, "residual": False}
IMAGE = Image(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.5,) * 3)


def make(image=IMAGE, **given):
    return Text2Image(spec=CaptionedImages(image=image, caption=Tokens(vocabulary=20, length=6, pad=0)), **TINY | given)


def batch(count=6):
    caption = torch.randint(1, 20, (count, 6))
    caption[::2, 4:] = 0
    x = torch.rand(count, 3, 16, 16) * 2 - 1
    return {"image": x, "caption": caption, "index": torch.arange(count)}


def turn(system, name):
    return next(objective for objective in system.objectives() if objective.name == name)


def count_of(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_at_64_pixels_are_those_of_the_papers_networks():
    """By the layers of the paper's code: kernels of 4, a projection of the text to 128, and three more convolutions at
    4x4 and 8x8 of the generator and 4x4 of the discriminator."""
    image = Image(channels=3, height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    with torch.device("meta"):
        system = make(image, latent_dim=100, text_dim=1024, generator_width=128, discriminator_width=64, residual=True)

    def residual(channels):
        inner = channels // 4
        return channels * inner + 9 * inner * inner + 9 * inner * channels + 2 * (inner + inner + channels)

    text = 1024 * 128 + 128
    ups = 16 * (228 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 2 * (1024 + 512 + 256 + 128)
    assert count_of(system.generator) == text + ups + residual(1024) + residual(512)
    downs = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 2 * (128 + 256 + 512)
    head = (512 + 128) * 512 + 2 * 512 + 16 * 512
    assert count_of(system.discriminator) == text + 2 * 128 + downs + residual(512) + head


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (28, 28), (32, 48)])
@pytest.mark.parametrize("residual", [False, True])
def test_it_makes_and_judges_images_of_the_datas_size(height, width, residual):
    image = Image(channels=1, height=height, width=width, mean=(0.5,), std=(0.5,))
    system = make(image, residual=residual)
    text_BE = system.text(batch(3)["caption"])
    made = system.generator(system.draw_latent(3), text_BE)
    assert made.shape == (3, 1, height, width)
    assert made.abs().max() <= 1
    assert system.judge(made, text_BE).shape == (3,)


def test_padding_does_not_change_what_a_text_means():
    system = make()
    tokens = torch.randint(1, 20, (2, 4))
    torch.testing.assert_close(system.text(tokens), system.text(F.pad(tokens, (0, 2))))
    assert system.text(tokens).square().mean(1).tolist() == pytest.approx([1.0, 1.0], rel=1e-4)


def test_each_turn_moves_its_own_networks_alone():
    system, data = make(), batch()
    for objective in system.objectives():
        loss, _ = system.training_loss(data, objective)
        slopes = torch.autograd.grad(loss, list(system.parameters()), allow_unused=True)
        slope_of = dict(zip(system.parameters(), slopes, strict=True))
        own = set(objective.params)
        assert all(slope_of[p] is not None and slope_of[p].any() for p in own), objective.name
        others = {"encoder": (), "discriminator": (), "generator": (system.discriminator,)}[objective.name]
        may_have = own | {p for module in others for p in module.parameters()}
        assert [name for name, p in system.named_parameters() if slope_of[p] is not None and p not in may_have] == []
    every = {p for objective in system.objectives() for p in objective.params}
    assert every == set(system.parameters())


def test_a_discriminator_that_guesses_has_the_losses_of_theory():
    system = make()
    torch.nn.init.zeros_(system.discriminator.head[-2].weight)
    losses = {name: system.training_loss(batch(), turn(system, name))[0].item() for name in system.players[1:]}
    assert losses == pytest.approx({"discriminator": 2 * math.log(2), "generator": math.log(2)})


@pytest.mark.parametrize("matching", [True, False])
def test_the_discriminators_loss_by_hand(matching, monkeypatch):
    """-ln D(real, right) - (ln(1 - D(real, wrong)) + ln(1 - D(fake, right))) / 2."""
    system, data = make(matching=matching).eval(), batch()
    texts = []
    head = system.discriminator.forward
    monkeypatch.setattr(system.discriminator, "forward", lambda f, t: (texts.append((f, t)), head(f, t))[1])
    loss, logs = system.training_loss(data, turn(system, "discriminator"))
    outputs = [head(features, text_BE) for features, text_BE in texts]
    right, fake = outputs[:2]
    expected = F.softplus(-right).mean() + F.softplus(fake).mean()
    if matching:
        wrong = outputs[2]
        expected = F.softplus(-right).mean() + (F.softplus(wrong).mean() + F.softplus(fake).mean()) / 2
        assert torch.equal(texts[2][0], texts[0][0])  # the real images
        assert logs["discriminator/wrong"].item() == pytest.approx(wrong.mean().item())
    assert len(outputs) == 2 + matching
    assert torch.equal(texts[0][1], texts[1][1])  # their own texts, also for the made ones
    torch.testing.assert_close(loss, expected)


def test_wrong_captions_always_differ_where_any_does():
    caption = torch.tensor([[1], [1], [2], [1], [3]])
    same_BB = (caption.unsqueeze(1) == caption).all(-1)
    seen = torch.stack([wrong_captions(same_BB) for _ in range(50)])
    assert (caption[seen, 0] != caption[:, 0]).all()
    assert set(seen[:, 0].tolist()) == {2, 4}
    assert wrong_captions(torch.ones(3, 3, dtype=torch.bool)).shape == (3,)


def test_a_batch_of_one_caption_has_no_wrong_ones():
    system, data = make().eval(), batch()
    data["caption"] = data["caption"][:1].expand(6, -1)
    loss, logs = system.training_loss(data, turn(system, "discriminator"))
    assert loss.isfinite()
    assert torch.equal(logs["discriminator/wrong"], logs["discriminator/fake"])


@pytest.mark.parametrize(("interpolate", "count"), [(True, 9), (False, 6)])
def test_the_generator_learns_from_texts_between_two_as_well(interpolate, count, monkeypatch):
    system, data = make(interpolate=interpolate), batch()
    texts = []
    forward = system.generator.forward
    monkeypatch.setattr(system.generator, "forward", lambda z, t: (texts.append(t), forward(z, t))[1])
    system.training_loss(data, turn(system, "generator"))
    own = system.text(data["caption"])
    (seen,) = texts
    assert len(seen) == count
    torch.testing.assert_close(seen[:6], own)
    if interpolate:
        torch.testing.assert_close(seen[6:], (own[:3] + own[[5, 0, 1]]) / 2)
    system.training_loss(data, turn(system, "discriminator"))
    assert len(texts[1]) == 6  # the discriminator never sees them


def test_equal_captions_of_a_batch_are_all_right():
    system = make()
    image, text = torch.eye(8)[[0, 2, 2]], torch.eye(8)[[0, 0, 2]]
    same_BB = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    loss, logs = system.matching_loss(text, image, same_BB)
    score_BB = 10 * image @ text.T
    right_BB = same_BB / same_BB.sum(1, keepdim=True)
    expected = (
        -(right_BB * score_BB.log_softmax(1)).sum(1).mean() - (right_BB * score_BB.T.log_softmax(1)).sum(1).mean()
    )
    torch.testing.assert_close(loss, expected / 2)
    assert logs["encoder/accuracy"].item() == pytest.approx(2 / 3)  # the second image is like the third text


class Bank:
    def __init__(self, data):
        self.data = data

    def eval_batches(self):
        return iter([self.data])


@torch.no_grad()
def test_metrics_do_not_depend_on_the_batch():
    system, data = make().eval(), batch(8)
    system.before_evaluation(Bank(batch(30)), None)
    whole = system.evaluate(data)
    parts = [system.evaluate({name: x[rows] for name, x in data.items()}) for rows in (slice(3), slice(3, 8))]
    joined = {name: parts[0][name] + parts[1][name] for name in whole}
    assert system.metrics(joined) == pytest.approx(system.metrics(whole), rel=1e-4)
    assert whole["pairs"] == 8
    assert set(system.metrics(whole)) == set(system.metric_names)


@pytest.mark.parametrize(
    "bad", [{"latent_dim": 0}, {"text_dim": 0}, {"generator_width": 0}, {"discriminator_width": 0}, {"loss": "hinge"}]
)
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        make(**bad)


def test_it_learns_which_text_belongs_to_an_image():
    torch.manual_seed(0)
    caption = torch.tensor([[1, 2, 0], [3, 2, 0], [1, 4, 5], [3, 4, 5]]).repeat(4, 1)
    x = torch.zeros(16, 3, 16, 16) - 0.5
    x[0::4, 0], x[1::4, 1], x[2::4, 2], x[3::4, 0, :8] = 0.8, 0.8, 0.8, 0.8
    x = (x + 0.05 * torch.randn_like(x)).clamp(-1, 1)
    data = {"image": x, "caption": F.pad(caption, (0, 3)), "index": torch.arange(16)}
    system = make(generator_width=8, discriminator_width=8)
    optimizers = [torch.optim.Adam(o.params, lr=5e-3, betas=(0.5, 0.999)) for o in system.objectives()]
    for _ in range(90):
        for objective, optimizer in zip(system.objectives(), optimizers, strict=True):
            optimizer.zero_grad()
            loss, _ = system.training_loss(data, objective)
            loss.backward(inputs=objective.params)
            optimizer.step()
    system.eval()
    with torch.no_grad():
        system.before_evaluation(Bank(data), None)
        assert system.metrics(system.evaluate(data))["match"] >= 0.9
        made = system.generator(system.draw_latent(64), system.text(data["caption"][[0, 1, 2, 3]].repeat(16, 1)))
    colour_43 = made.mean((2, 3)).unflatten(0, (16, 4)).mean(0)
    for wanted, other in ((0, 1), (1, 2), (2, 0)):
        assert colour_43[wanted, wanted] > colour_43[other, wanted] + 0.1


WORDS = ("model=text2image", "data.samples=60", "data.batch_size=8", "model.generator_width=4", "name=t",
         "model.discriminator_width=4", "trainer.max_steps=4")  # fmt: skip
PROMPT = "a small red circle above a blue square"


def test_prompts_on_the_command_line(dlx_call):
    call = dlx_call("train", *WORDS, "--json")
    assert call.code == 0, call.err
    assert {"test/match", "test/spread"} <= set(json.loads(call.out)["metrics"])
    call = dlx_call("sample", "t", "--prompt", PROMPT, "-n", "3", "--json")
    assert call.code == 0, call.err
    assert len(json.loads(call.out)["pictures"]) == 1
    call = dlx_call("sample", "t", "--prompt", PROMPT, "--given", "path=a green triangle", "-n", "5", "--json")
    assert call.code == 0, call.err
    call = dlx_call("sample", "t", "-n", "3", "--json")
    texts = json.loads(call.out)["texts"]["caption"]
    assert len(texts) == 3
    assert all(text.startswith("a ") for text in texts)
    for words, said in (
        (["--prompt", "a crimson circle"], "--given prompt: a word that the captions lack, read as 'a \ufffd circle'"),
        (["--prompt", " "], "holds no tokens"),
        (["--given", "path=a circle"], "--given path: is where the way ends; --prompt is where it begins"),
        (["--prompt", PROMPT, "--given", "style=x"], "--given style: unknown argument"),
    ):
        call = dlx_call("sample", "t", *words)
        assert call.code == 2, call.out
        assert said in call.err
        assert call.err.count("\n") == 1


def test_the_papers_recipe_takes_a_step():
    config = compose(["experiment=text2image_cub", "data.path=x"])
    assert (config["optimizer"]["lr"], config["optimizer"]["betas"]) == (2e-4, [0.5, 0.999])
    assert (config["dataset"]["batch_size"], config["dataset"]["size"], config["trainer"]["epochs"]) == (64, 64, 600)
    schedule = build(config, "scheduler")
    assert [schedule.factor(100 * part + 50, 600) for part in range(6)] == [0.5**part for part in range(6)]
    image = Image(channels=3, height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = CaptionedImages(image=image, caption=Tokens(vocabulary=80, length=201, pad=0))
    with torch.device("meta"):
        system = build(config, "model", spec=spec)
    assert count_of(system.generator) == 18_905_472
    small = ["model.generator_width=2", "model.discriminator_width=2", "model.text_dim=8"]
    system = build(compose(["experiment=text2image_cub", "data.path=x", *small]), "model", spec=spec)
    data = {"image": torch.rand(3, 3, 64, 64), "caption": torch.randint(1, 80, (3, 201)), "index": torch.arange(3)}
    for objective in system.objectives():
        loss, _ = system.training_loss(data, objective)
        loss.backward(inputs=objective.params)
        assert loss.isfinite()


@pytest.mark.slow
def test_a_real_picture_matches_its_own_caption(dlx_call):
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=text2image", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/match"])
    print(found)  # noqa: T201
    assert statistics.mean(found) >= 0.95, found


def test_the_dataset_and_the_system_fit():
    system = Text2Image(spec=CaptionedShapes(samples=20).spec.narrow(CaptionedImages), **TINY)
    assert system.caption.length == 12
