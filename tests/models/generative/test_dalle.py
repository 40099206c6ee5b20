"""DALL-E: what a token reads, which logits count where, the loss's weights, two stages or a run's codes, prompts."""

import json
import math
from pathlib import Path

import pytest
import torch
from run_ends import assert_same_end

from dlx.config import build, compose
from dlx.data.shapes import COLOURS
from dlx.models.generative.dalle import DALLE
from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.tasks.spec import CaptionedImages, Image, Tokens

PAD, L, V, K = 0, 5, 7, 6
SMALL = {"codes": K, "code_width": 4, "code_levels": 3, "dim": 16, "depth": 2, "heads": 2}
TINY = [
    "model.dim=16", "model.depth=1", "model.heads=2", "model.codes=8", "model.code_width=8", "data.samples=60",
    "data.batch_size=8", "trainer.log_every=1", "trainer.validate_every=4",
]  # fmt: skip


def spec(pad=PAD, side=8):
    half = (0.5,) * 3
    image = Image(channels=3, height=side, width=side, mean=half, std=half)
    return CaptionedImages(image=image, caption=Tokens(vocabulary=V, length=L, pad=pad))


def batch_of(system, size=3):
    return {
        "image": torch.rand(size, *system.spec.image.shape), "caption": torch.tensor([[1, 4, 2, PAD, PAD]] * size),
        "index": torch.arange(size), "step": torch.tensor(0), "stage": torch.tensor(1), "progress": torch.tensor(0.5),
    }  # fmt: skip


def test_padding_is_a_token_of_its_own_at_each_place():
    system = DALLE(spec=spec(), **SMALL)
    assert (system.text_ids, system.N) == (V + L, 4)
    assert system.ids(torch.tensor([[1, 4, 2, PAD, PAD]])).tolist() == [[1, 4, 2, V + 3, V + 4]]
    assert DALLE(spec=spec(pad=None), **SMALL).text_ids == V


def test_text_is_never_a_code_nor_a_code_text():
    system = DALLE(spec=spec(), **SMALL)
    logits = system.logits(system.tokens(batch_of(system)))
    assert logits.shape == (3, L + 4, V + L + K)
    assert logits[:, :L, : V + L].isfinite().all()
    assert logits[:, L:, V + L :].isfinite().all()
    assert (logits[:, :L, V + L :] == -math.inf).all()
    assert (logits[:, L:, : V + L] == -math.inf).all()
    torch.testing.assert_close(logits.softmax(-1)[:, L:, V + L :].sum(-1), torch.ones(3, 4))


def test_a_token_is_predicted_from_those_before_it_alone():
    system = DALLE(spec=spec(), **SMALL).eval()
    ids = system.tokens(batch_of(system, 1))
    with torch.no_grad():
        found = system.logits(ids)
        for place in range(L + 4):
            changed = ids.clone()
            changed[:, place] = V + L + (ids[:, place] + 1) % K if place >= L else (ids[:, place] + 1) % V
            other = system.logits(changed)
            assert torch.equal(other[:, : place + 1], found[:, : place + 1])
            moved = [(other[:, at] != found[:, at]).any().item() for at in range(place + 1, L + 4)]
            assert all(moved)  # the text also moves each code's


def test_the_place_of_a_code_is_its_row_and_its_column():
    system = DALLE(spec=spec(side=24), **SMALL, image_weight=0.0).eval()
    ids = torch.zeros(1, L + 36, dtype=torch.int64)
    with torch.no_grad():
        before = system.logits(ids)
        system.row[3] += 1.0
        changed = (system.logits(ids) != before).any(-1)[0]
    assert not changed[: L + 1 + 3 * 6].any()
    assert changed[L + 1 + 3 * 6 :].all()


def test_the_loss_is_an_eighth_of_the_text_and_seven_of_the_image():
    system = DALLE(spec=spec(), **SMALL)
    batch = batch_of(system)
    sequence = system.objectives(1)[0]
    loss, logs = system.training_loss(batch, sequence)
    ids = system.tokens(batch)
    log_p = system.logits(ids).log_softmax(-1).gather(-1, ids.unsqueeze(-1))[..., 0]
    text, image = -log_p[:, :L].mean(), -log_p[:, L:].mean()
    torch.testing.assert_close(loss, text / 8 + 7 * image / 8)
    torch.testing.assert_close((logs["text"], logs["image"]), (text.detach(), image.detach()))
    assert text.item() == pytest.approx(math.log(V + L), abs=0.2)  # a guess
    assert image.item() == pytest.approx(math.log(K), abs=0.2)


def test_each_stage_moves_its_own_network_alone():
    system = DALLE(spec=spec(), **SMALL)
    names = {p: name for name, p in system.named_parameters()}
    for stage, first in ((0, True), (1, False)):
        (turn,) = system.objectives(stage)
        loss, _ = system.training_loss(batch_of(system), turn)
        slopes = torch.autograd.grad(loss, list(names), allow_unused=True)
        moved = {name for name, slope in zip(names.values(), slopes, strict=True) if slope is not None}
        assert moved == {names[p] for p in turn.params}
        assert all(name.startswith("image_tokens.") == first for name in moved)
    assert system.stage_starts(10) == [0, 5]
    with pytest.raises(ValueError, match=r"^first must leave a step for each stage, got 0.5 of 1 steps"):
        system.stage_starts(1)


def test_cached_keys_and_values_change_nothing():
    system = DALLE(spec=spec(), **SMALL).eval()
    with torch.no_grad():
        system.out.weight.mul_(30)  # far from even
    text = system.ids(torch.tensor([[1, 4, 2, PAD, PAD]])).expand(4, -1)
    made = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        made.append(system.paint(text, use_cache=use_cache))
    torch.testing.assert_close(made[0]["image"], made[1]["image"])
    assert made[0]["caption"].tolist() == [[1, 4, 2, PAD, PAD]] * 4
    torch.manual_seed(0)
    both = system.sample(4)  # texts are drawn too
    assert both["caption"].shape == (4, L)
    assert both["caption"].max() < V
    assert both["image"].shape == (4, 3, 8, 8)


def test_metrics_do_not_depend_on_the_batch():
    system = DALLE(spec=spec(), **SMALL).eval()
    batch = batch_of(system, 6)
    with torch.no_grad():
        whole = system.metrics(system.evaluate(batch))
        parts = [
            system.evaluate({k: v[rows] if v.dim() else v for k, v in batch.items()}) for rows in ([0, 1], [2, 3, 4, 5])
        ]
    assert system.metrics({k: parts[0][k] + parts[1][k] for k in parts[0]}) == pytest.approx(whole, rel=1e-5)
    assert whole["loss"] == pytest.approx(whole["text"] / 8 + 7 * whole["image"] / 8)


@pytest.mark.parametrize(
    "bad", [{"first": 0.0}, {"dim": 0}, {"depth": 0}, {"image_weight": -1.0}, {"dropout": 1.0}, {"codes": 1}]
)
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        DALLE(spec=spec(), **{**SMALL, **bad})


def test_the_papers_transformer_has_12_billion_parameters():
    config = compose(["experiment=dalle_paper"])
    image = Image(channels=3, height=256, width=256, mean=(0.5,) * 3, std=(0.5,) * 3)
    caption = Tokens(vocabulary=16_384, length=256, pad=0)
    with torch.device("meta"):
        system = build(config, "model", spec=CaptionedImages(image=image, caption=caption))
    (turn,) = system.objectives(1)
    D, ids = 3968, 16_384 + 256 + 8192
    block = 12 * D * D + 13 * D
    places = (1 + 256 + 32 + 32) * D
    assert sum(p.numel() for p in turn.params) == 64 * block + 2 * ids * D + ids + places + 2 * D
    assert 64 * block == pytest.approx(12.1e9, rel=2e-3)
    assert (system.L, system.N) == (256, 1024)


def test_the_papers_recipe_takes_a_step(dlx_call):
    words = [*TINY, "data.side=32", "trainer.max_steps=2", "model.code_levels=3"]
    call = dlx_call("train", "experiment=dalle_paper", *words, "--json")
    assert call.code == 0, call.err


@pytest.mark.parametrize("cut", [2, 4, 5])
def test_it_is_resumed_over_the_boundary_of_two_stages_to_the_same_bits(cut, dlx_call, sigterm_at):
    words = ["train", "model=dalle", *TINY, "model.first=0.5", "trainer.max_steps=8", "--json"]
    whole = dlx_call(*words)
    assert whole.code == 0, whole.err
    with sigterm_at(cut):
        ended = dlx_call(*words)
    assert ended.code == 143, ended.err
    resumed = dlx_call("resume", json.loads(ended.out.splitlines()[-1])["run"], "--json")
    assert resumed.code == 0, resumed.err
    assert_same_end(Path(json.loads(resumed.out)["run"]), Path(json.loads(whole.out)["run"]))


def test_it_takes_the_codes_of_a_run_and_draws_what_it_is_asked_for(dlx_call):
    data = ["data=captioned_shapes", "data.samples=60", "data.batch_size=8"]
    words = ["model.levels=3", "model.width=8", "model.codes=8", "trainer.max_steps=3", "name=codes"]
    call = dlx_call("train", "model=dvae", *data, *words, "--json")
    assert call.code == 0, call.err
    codes = json.loads(call.out)["run"]
    words = [word for word in TINY if not word.startswith(("model.code", "model.codes"))]
    call = dlx_call("train", "model=dalle", *words, "model.image_tokens_from=codes", "trainer.max_steps=3", "name=d",
                    "--json")  # fmt: skip
    assert call.code == 0, call.err
    theirs, own = (
        load_weights(latest_checkpoint(Path(run) / "checkpoints")[0] / "best.safetensors")
        for run in (codes, json.loads(call.out)["run"])
    )
    assert [name for name, tensor in theirs.items() if not torch.equal(own[f"image_tokens.{name}"], tensor)] == []
    call = dlx_call("sample", "d", "--prompt", "a small red circle", "-n", "3", "--json")
    assert call.code == 0, call.err
    call = dlx_call("sample", "d", "--prompt", "a small violet circle")
    assert call.code == 2
    assert call.err == "error: --prompt: has words that the captions of the data do not have: a small \ufffd circle\n"
    call = dlx_call("sample", "d", "--given", "temperature=-1")
    assert call.code == 2
    assert call.err.startswith("error: --given temperature: must be at least 0")


def test_it_learns_which_codes_a_word_has(monkeypatch):
    """Captions of one word, each with codes of its own: what is drawn of a word are its codes."""
    system = DALLE(spec=spec(), **SMALL)
    codes = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [5, 5, 4, 4]])
    seen = []
    monkeypatch.setattr(system.image_tokens, "encode", lambda image: codes[image[:, 0, 0, 0].long()].view(-1, 2, 2))
    monkeypatch.setattr(system.image_tokens, "decode", lambda code: seen.append(code.flatten(1)) or code)
    (turn,) = system.objectives(1)
    optimizer = torch.optim.Adam(turn.params, lr=5e-3)
    for _ in range(120):
        word_B = torch.randint(3, (16,))
        caption = torch.nn.functional.pad(1 + word_B.unsqueeze(1), (0, L - 1), value=PAD)
        batch = {"image": word_B.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8), "caption": caption}
        loss, logs = system.training_loss(batch, turn)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logs["image"] < 0.1
    assert logs["text"] < math.log(3) / L + 0.1  # which word it is cannot be known, all that follows can
    for word in range(3):
        system.eval().sample(16, prompt=torch.tensor([[1 + word]]))
    right = (torch.stack(seen) == codes[:, None]).float().mean()
    assert right > 0.95


def colour_of(image_CHW: torch.Tensor) -> str:
    """The palette's nearest colour to the mean of the pixels that are most coloured."""
    x_PC = image_CHW.flatten(1).T
    strength_P = x_PC.amax(1) - x_PC.amin(1)
    mean_C = x_PC[strength_P.topk(12).indices].mean(0)
    palette_KC = torch.tensor(list(COLOURS.values())) / 255
    near = ((mean_C - mean_C.mean()) / (mean_C - mean_C.mean()).norm()).unsqueeze(0)
    hues_KC = palette_KC - palette_KC.mean(1, keepdim=True)
    return list(COLOURS)[int((hues_KC / hues_KC.norm(dim=1, keepdim=True) @ near.T).argmax())]


@pytest.mark.slow
def test_images_have_the_colour_that_they_are_asked_for(dlx_call):
    call = dlx_call("train", "model=dalle", "data.objects=[1,1]", "name=d", "--json")
    assert call.code == 0, call.err
    import dlx

    system, found = dlx.load("d").system, []
    for colour in list(COLOURS)[:4]:
        for kind in ("circle", "square", "triangle"):
            text = system.caption.read(f"a large {colour} {kind}")
            found += [colour_of(image) == colour for image in system.sample(8, prompt=text)["image"]]
    share = sum(found) / len(found)
    print(share)  # noqa: T201
    assert share >= 0.9
