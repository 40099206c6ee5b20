"""Images from texts by a conditional DCGAN (Reed et al. 2016, arXiv:1605.05396): GAN-CLS and GAN-INT.

The discriminator sees three kinds of pairs: a real image with its own text, a real image with a wrong text, and a made
image with the text that it was made for; only the first is to be called real. So it learns whether image and text match
(CLS). The generator also makes images of texts halfway between two of the batch, which no image belongs to (INT).
The texts are embedded by a recurrent network that learns along, to tell which text belongs to which image (as the
paper's, which was trained before: arXiv:1605.05395).
Shapes: B batch, L tokens, E of a text's embedding, P of its projection, Z of the latent, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.generative.dcgan import initialize, make_trunk, sides
from dlx.random import uniform_rows
from dlx.runs.draw import subplots
from dlx.runs.media import grid
from dlx.tasks.adversarial import Adversarial, outputs_log, spread_sums
from dlx.tasks.gather import gather_with_grad
from dlx.tasks.spec import CaptionedImages, Image, Tokens
from dlx.tasks.system import Objective

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Statistics

PROJECTED = 128  # P in the paper
TRIED = 8  # captions among which a wrong one is looked for
KNOWN = 256  # captions that samples without a prompt are of
TEMPERATURE = 0.1  # of the matching loss
ROWS, COLUMNS = 8, 6  # of the picture: captions, and samples of each
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class TextEncoder(nn.Module):
    """The last state of a GRU over embedded tokens, of length sqrt(E): from tokens [B, L] to [B, E]."""

    def __init__(self, caption: Tokens, dim: int) -> None:
        super().__init__()
        self.caption = caption
        self.embedding = nn.Embedding(caption.vocabulary, dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, dim)

    def forward(self, caption_BL: Tensor) -> Tensor:
        state_BLE = self.gru(self.embedding(caption_BL))[0]
        last_B = self.caption.valid(caption_BL).sum(1).clamp_min(1) - 1
        text_BE = self.out(state_BLE[torch.arange(len(last_B), device=last_B.device), last_B])
        return F.normalize(text_BE, dim=1) * text_BE.shape[1] ** 0.5


class Residual(nn.Module):
    """A map plus three convolutions of it, by way of a quarter of its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.branch(x_BCHW)


class Generator(nn.Module):
    """From latents [B, Z] and texts [B, E] to images [B, C, H, W] in [-1, 1]."""

    def __init__(self, latent_dim: int, text_dim: int, shape: tuple[int, ...], width: int, *, residual: bool) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(text_dim, PROJECTED), nn.LeakyReLU(0.2))
        maps = sides(shape)
        channels = [width * 2**level for level in reversed(range(len(maps) - 1))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim + PROJECTED, channels[0], maps[-1], bias=False)]
        for number, (before, after) in enumerate(zip(channels, [*channels[1:], shape[0]], strict=True)):
            layers += [nn.BatchNorm2d(before), *([Residual(before)] if residual and number < 2 else [])]
            layers += [nn.ReLU(inplace=True), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z_BZ: Tensor, text_BE: Tensor) -> Tensor:
        both = torch.cat([z_BZ, self.project(text_BE)], 1)
        return self.layers(both[:, :, None, None])


class Discriminator(nn.Module):
    """Whether images are real and have the text that they are paired with: `features` of the images, then logits [B] of
    those and texts [B, E]. The text stands at each place of the smallest map."""

    def __init__(self, text_dim: int, shape: tuple[int, ...], width: int, *, residual: bool) -> None:
        super().__init__()
        trunk, (channels, height, side) = make_trunk(shape, width)
        self.features = nn.Sequential(*trunk[:-1], *([Residual(channels)] if residual else []), trunk[-1])
        self.project = nn.Sequential(nn.Linear(text_dim, PROJECTED), nn.BatchNorm1d(PROJECTED), nn.LeakyReLU(0.2))
        self.head = nn.Sequential(
            nn.Conv2d(channels + PROJECTED, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 1, (height, side), bias=False), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, features_BCHW: Tensor, text_BE: Tensor) -> Tensor:
        text_BPHW = self.project(text_BE)[:, :, None, None].expand(-1, -1, *features_BCHW.shape[2:])
        return self.head(torch.cat([features_BCHW, text_BPHW], 1))


class Text2Image(Adversarial):
    """text_dim: E. matching: real images with wrong texts are shown to the discriminator (CLS). interpolate: the
    generator also learns from texts between two (INT). residual: three more convolutions at the two smallest maps of
    the generator and at the smallest of the discriminator. The others are as of `DCGAN`.

    `match` is the share of real images whose own caption scores above another image's.
    """

    players = ("encoder", "discriminator", "generator")  # type: ignore[assignment]
    whole_batch = True

    input: Image
    generator: Generator
    discriminator: Discriminator
    known_KL: Tensor

    def __init__(
        self,
        *,
        spec: CaptionedImages,
        latent_dim: int = 100,
        text_dim: int = 1024,
        generator_width: int = 128,
        discriminator_width: int = 64,
        residual: bool = True,
        matching: bool = True,
        interpolate: bool = True,
        loss: Literal["non_saturating", "minimax", "least_squares"] = "non_saturating",
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, latent_dim=latent_dim, text_dim=text_dim)
        checks.at_least(1, generator_width=generator_width, discriminator_width=discriminator_width)
        checks.one_of(("non_saturating", "minimax", "least_squares"), loss=loss)
        self.choose_loss(loss)
        self.caption = spec.caption
        self.latent_dim, self.matching, self.interpolate = latent_dim, matching, interpolate
        shape = self.input.shape
        self.generator = Generator(latent_dim, text_dim, shape, generator_width, residual=residual)
        self.discriminator = Discriminator(text_dim, shape, discriminator_width, residual=residual)
        self.apply(initialize)
        self.text = TextEncoder(spec.caption, text_dim)
        trunk, features = make_trunk(shape, max(1, discriminator_width // 2))
        self.eye = nn.Sequential(trunk, nn.Flatten(), nn.Linear(features[0] * features[1] * features[2], text_dim))
        self.register_buffer("known_KL", torch.zeros(KNOWN, spec.caption.length, dtype=torch.int64))
        self._bank_NL: Tensor | None = None

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [
            Objective.of("encoder", self.text, self.eye),
            Objective.of("discriminator", self.discriminator),
            Objective.of("generator", self.generator),
        ]

    # Training: three turns.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        image, caption_BL = batch["image"], batch["caption"]
        if objective.name == "encoder":  # it compares the samples of all processes
            parts = self.text(caption_BL), self.eye(image), self.caption.padded(caption_BL).double()
            text_BE, image_BE, joined_BL = (gather_with_grad(part) for part in parts)
            return self.matching_loss(text_BE, image_BE, equal(joined_BL))
        with torch.no_grad():
            text_BE = self.text(caption_BL)
        if objective.name == "generator":
            return self.generator_loss(text_BE), {}
        with torch.no_grad():
            fake = self.generator(self.draw_latent(len(image)), text_BE)
        features = self.discriminator.features(image)
        on_real, on_fake = self.discriminator(features, text_BE), self.judge(fake, text_BE)
        loss, logs = self.loss.discriminator(on_real, on_fake), outputs_log("discriminator", on_real, on_fake)
        if not self.matching:
            return loss, logs
        same_BB = equal(caption_BL)
        on_wrong = self.discriminator(features, text_BE[wrong_captions(same_BB)])
        on_wrong = torch.where(same_BB.all(1), on_fake, on_wrong)  # a batch of one caption has no wrong ones
        logs["discriminator/wrong"] = on_wrong.detach().float().mean()
        return (loss + self.loss.discriminator(on_real, on_wrong)) / 2, logs

    def matching_loss(self, text_BE: Tensor, image_BE: Tensor, same_BB: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of which text of the batch an image has, and the reverse, by the cosine of both; equal captions
        are all right."""
        score_BB = F.normalize(image_BE, dim=1) @ F.normalize(text_BE, dim=1).T / TEMPERATURE
        right_BB = same_BB / same_BB.sum(1, keepdim=True)
        loss = (F.cross_entropy(score_BB, right_BB) + F.cross_entropy(score_BB.T, right_BB)) / 2
        found_B = same_BB.gather(1, score_BB.argmax(1, keepdim=True))
        return loss, {"encoder/accuracy": found_B.float().mean()}

    def generator_loss(self, text_BE: Tensor) -> Tensor:
        if self.interpolate:  # half as many again, as in the paper's code
            between_BE = (text_BE + text_BE.roll(1, 0))[: (len(text_BE) + 1) // 2] / 2
            text_BE = torch.cat([text_BE, between_BE])
        return self.loss.generator(self.judge(self.generator(self.draw_latent(len(text_BE)), text_BE), text_BE))

    def judge(self, image: Tensor, text_BE: Tensor) -> Tensor:
        """Logits [B] that images are real and have these texts."""
        said: Tensor = self.discriminator(self.discriminator.features(image), text_BE)
        return said

    # Evaluation.

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("match", "spread")

    def before_evaluation(self, train: Any, dist: Any) -> None:
        """Keeps the captions that wrong ones are taken from, and some that samples without a prompt are of."""
        self._bank_NL = bank_NL = torch.cat([self.caption.padded(batch["caption"]) for batch in train.eval_batches()])
        self.known_KL.copy_(bank_NL[torch.arange(KNOWN, device=bank_NL.device) % len(bank_NL)])

    def generate_rows(self, text_BE: Tensor, index_B: Tensor) -> Tensor:
        """The same image for the same text and index."""
        made: Tensor = self.generator(self.latent_rows(index_B), text_BE)
        return made

    def evaluate(self, batch: Batch) -> Statistics:
        image, caption_BL, index_B = batch["image"], self.caption.padded(batch["caption"]), batch["index"]
        bank_NL = self.known_KL if self._bank_NL is None else self._bank_NL
        tried_BT = (uniform_rows("wrong caption", index_B, TRIED) * len(bank_NL)).long().clamp_max(len(bank_NL) - 1)
        differ_BT = (bank_NL[tried_BT] != caption_BL.unsqueeze(1)).any(-1)
        first_B1 = tried_BT.gather(1, differ_BT.float().argmax(1, keepdim=True))
        text_BE, counted_B = self.text(caption_BL), differ_BT.any(1)
        features = self.discriminator.features(image)
        own_B = self.discriminator(features, text_BE)
        other_B = self.discriminator(features, self.text(bank_NL[first_B1[:, 0]]))
        return {
            **spread_sums(image, "real"),
            **spread_sums(self.generate_rows(text_BE, index_B), "fake"),
            "matches": ((own_B > other_B) & counted_B).sum(),
            "pairs": counted_B.sum(),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        match = float(statistics["matches"]) / max(1, int(statistics["pairs"]))
        return {"match": match, **super().metrics(statistics)}

    # What a person asks for.

    def sample(self, count: int, *, prompt: Tokens | None = None, path: Tokens | None = None) -> Batch:
        """Images of a prompt; with `path`, another text, images on the way from the one to the other, of one latent.
        Without a prompt they are of captions of the training data, which come with them."""
        if prompt is None and path is not None:
            raise UserError("--given path: is where the way ends; --prompt is where it begins")
        if prompt is None:
            if not self.known_KL.any():
                raise UserError("--prompt: needs a text, as this run has not kept any caption yet")
            caption_BL = self.known_KL[torch.arange(count, device=self.device) % KNOWN]
            return {"image": self.generator(self.draw_latent(count), self.text(caption_BL)), "caption": caption_BL}
        start_1E = self.read_prompt("prompt", prompt)
        if path is None:
            return {"image": self.generator(self.draw_latent(count), start_1E.expand(count, -1))}
        share_B1 = torch.linspace(0, 1, count, device=self.device).unsqueeze(1)
        text_BE = start_1E.lerp(self.read_prompt("path", path), share_B1)
        return {"image": self.generator(self.draw_latent(1).expand(count, -1), text_BE)}

    def sample_from(self, batch: Batch) -> Batch:
        """An image of each caption."""
        caption_BL = self.caption.padded(batch["caption"])
        image = self.generator(self.draw_latent(len(caption_BL)), self.text(caption_BL))
        return {"image": image, "caption": caption_BL}

    def read_prompt(self, name: str, tokens: Any) -> Tensor:
        """Its embedding, [1, E]. Raises UserError for words that no caption of the data has."""
        (text,) = self.caption.draw(tokens)
        if UNKNOWN in text:
            words = getattr(self.caption.load_tokenizer(), "words", [])
            known = f" (they have {', '.join(words[:40])}{', ...' if len(words) > 40 else ''})" if words else ""
            raise UserError(f"--given {name}: a word that the captions lack, read as {text!r}{known}")
        encoded: Tensor = self.text(tokens.to(self.device))
        return encoded

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Captions of held-out images: the image, and what is made of its caption."""
        image, caption_BL = batch["image"][:ROWS], batch["caption"][:ROWS]
        rows = len(image)
        text_BE = self.text(caption_BL).repeat_interleave(COLUMNS, 0)
        z_BZ = self.draw_latent(COLUMNS).repeat(rows, 1)
        made = self.generator(z_BZ, text_BE).unflatten(0, (rows, COLUMNS))
        texts = self.caption.draw(caption_BL)
        figure, axes = subplots(-(-rows // 2), 2, size=(9.0, 0.3 + 0.95 * -(-rows // 2)), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, text, real, fakes in zip(axes.flat, texts, image, made, strict=False):
            pixels = grid(self.input.draw(torch.cat([real[None], fakes])), columns=COLUMNS + 1)
            axis.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set_title(text, fontsize=9)
        figure.suptitle("left: a real image with this caption; the others are made of the caption alone", fontsize=9)
        return {"samples": grid(self.input.draw(made.flatten(0, 1)), columns=COLUMNS), "prompts": figure}


def equal(caption_BL: Tensor) -> Tensor:
    """Which two captions are equal, bool [B, B]."""
    return (caption_BL.unsqueeze(1) == caption_BL).all(-1)


def wrong_captions(same_BB: Tensor) -> Tensor:
    """For each caption a random one of the batch that differs from it, int64 [B]; any where none does."""
    return torch.rand(same_BB.shape, device=same_BB.device).masked_fill(same_BB, -1).argmax(1)
