"""StarGAN (Choi et al. 2017, arXiv:1711.09020): one generator translates images between many domains.

It reads an image and the domain that is asked for; of k domains a CycleGAN needs a generator for each of k (k - 1)
ways. The discriminator says whether a patch is real, and which domain an image is of; a domain is a class, or a set of
attributes of which any may hold.
Shapes: B batch, C channels, H height, W width, K domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.runs.media import grid
from dlx.tasks.adversarial import LOSSES, gradient_penalty, in_sign_range, outputs_log
from dlx.tasks.spec import AttributedImages, Attributes, Image, Label, LabeledImages
from dlx.tasks.system import Answer, Objective, System
from dlx.tasks.truth import truth

if TYPE_CHECKING:
    from dlx.tasks.answer import Report
    from dlx.tasks.system import Batch, Statistics

SHOWN = 8  # images of a picture


class Residual(nn.Module):
    """x plus two convolutions of it, without a nonlinearity after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        norms = [nn.InstanceNorm2d(width, affine=True) for _ in range(2)]
        self.layers = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.layers(x_BCHW)


class Generator(nn.Module):
    """Images [B, C, H, W] in the domains [B, K] that are asked for, as further channels of their input; in [-1, 1]."""

    def __init__(self, channels: int, domains: int, width: int, blocks: int, halvings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels + domains, width, 7, padding=3, bias=False)]
        layers += [nn.InstanceNorm2d(width, affine=True), nn.ReLU()]
        for _ in range(halvings):
            layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False)]
            layers += [nn.InstanceNorm2d(2 * width, affine=True), nn.ReLU()]
            width *= 2
        layers += [Residual(width) for _ in range(blocks)]
        for _ in range(halvings):
            layers += [nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False)]
            layers += [nn.InstanceNorm2d(width // 2, affine=True), nn.ReLU()]
            width //= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 7, padding=3, bias=False), nn.Tanh())

    def forward(self, x_BCHW: Tensor, domain_BK: Tensor) -> Tensor:
        maps_BKHW = domain_BK[:, :, None, None].expand(-1, -1, *x_BCHW.shape[2:]).to(x_BCHW.dtype)
        return self.layers(torch.cat([x_BCHW, maps_BKHW], 1))


class Discriminator(nn.Module):
    """Of images: scores of patches [B, 1, H', W'], and logits of domains [B, K]. It has no norm: samples of a batch
    must not depend on each other under a gradient penalty."""

    def __init__(self, shape: tuple[int, ...], domains: int, width: int, halvings: int) -> None:
        super().__init__()
        channels, height, rest = shape[0], shape[1] >> halvings, shape[2] >> halvings
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            channels, width = width, 2 * width
        self.trunk = nn.Sequential(*layers)
        self.source = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        self.domain = nn.Conv2d(channels, domains, (height, rest), bias=False)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x_BCHW)
        return self.source(features), self.domain(features).flatten(1)


class StarGAN(System):
    """width, blocks, halvings: of the generator: channels next to the image, residual blocks, and how often it halves
    the side before them. discriminator_width, discriminator_halvings: of the discriminator; each halving doubles the
    channels. critic_steps: its turns for one of the generator. penalty, classification, reconstruction: weights of the
    gradient penalty, of the domains' cross-entropy and of the L1 to the image after a translation there and back.
    identity: weight of the L1 to the image of those that are asked for the domain that they are of; the paper has none.
    It is CycleGAN's (arXiv:1703.10593, section 5.2): without it a generator may exchange colours everywhere, since
    that is undone on the way back.
    exclusive: attributes of which one holds at most, as colours of hair: where one is asked for, the others go.

    Images are in [-1, 1], and errors are mean absolute differences (L1) in it.
    """

    players = ("discriminator", "generator")
    compiles = False
    film = True
    spec: LabeledImages | AttributedImages

    def __init__(
        self,
        *,
        spec: LabeledImages | AttributedImages,
        width: int = 64,
        blocks: int = 6,
        halvings: int = 2,
        discriminator_width: int = 64,
        discriminator_halvings: int = 6,
        critic_steps: int = 5,
        penalty: float = 10.0,
        classification: float = 1.0,
        reconstruction: float = 10.0,
        identity: float = 0.0,
        exclusive: Sequence[str] = (),
    ) -> None:
        super().__init__()
        checks.at_least(
            1, width=width, blocks=blocks, halvings=halvings, discriminator_width=discriminator_width,
            discriminator_halvings=discriminator_halvings, critic_steps=critic_steps,
        )  # fmt: skip
        checks.at_least(0, penalty=penalty, classification=classification)
        checks.at_least(0, reconstruction=reconstruction, identity=identity)
        self.spec = in_sign_range(spec)
        image = self.spec.image
        for name, times in {"halvings": halvings, "discriminator_halvings": discriminator_halvings}.items():
            if any(side % 2**times or side < 2**times for side in image.shape[1:]):
                raise ValueError(f"{name} must leave whole pixels of {image}, got {times}")
        ((self.domain_name, self.domain),) = (
            (name, entry) for name, entry in self.spec.entries.items() if isinstance(entry, Label | Attributes)
        )
        names = self.domain.classes if isinstance(self.domain, Label) else self.domain.names
        if len(names) < 2 and isinstance(self.domain, Label):
            raise ValueError(f"spec must have two classes or more, got {', '.join(names)}")
        if unknown := [name for name in exclusive if isinstance(self.domain, Label) or name not in names]:
            raise ValueError(f"exclusive must name attributes of the data, got {', '.join(unknown)}")
        self.names, self.exclusive = names, [names.index(name) for name in exclusive]
        self.critic_steps, self.penalty = critic_steps, penalty
        self.classification, self.reconstruction, self.identity = classification, reconstruction, identity
        self.generator = Generator(image.channels, len(names), width, blocks, halvings)
        self.discriminator = Discriminator(image.shape, len(names), discriminator_width, discriminator_halvings)

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [
            Objective.of("discriminator", self.discriminator),
            Objective.of("generator", self.generator, every=self.critic_steps),
        ]

    def averaged(self) -> list[nn.Parameter]:
        return list(self.generator.parameters())

    # Domains.

    def domains(self, batch: Batch) -> Tensor:
        """Those of the images, of 0 and 1, [B, K]."""
        value = batch[self.domain_name]
        return self.one_hot(value) if isinstance(self.domain, Label) else value

    def one_hot(self, label_B: Tensor) -> Tensor:
        return (label_B.unsqueeze(1) == torch.arange(len(self.names), device=label_B.device)).float()

    def domain_loss(self, logits_BK: Tensor, domain_BK: Tensor) -> Tensor:
        """The cross-entropy: of classes, or of attributes, summed over these; a mean over samples."""
        if isinstance(self.domain, Label):
            return F.cross_entropy(logits_BK, domain_BK)
        return F.binary_cross_entropy_with_logits(logits_BK, domain_BK, reduction="none").sum(1).mean()

    def changed(self, domain_BK: Tensor, number: int) -> Tensor:
        """What is asked for to get domain `number`, [B, K]: that class, or that attribute the other way round."""
        wanted_K = torch.arange(len(self.names), device=domain_BK.device) == number
        if isinstance(self.domain, Label):
            return wanted_K.float().expand_as(domain_BK)
        if number not in self.exclusive:
            return torch.where(wanted_K, 1 - domain_BK, domain_BK)
        others = torch.tensor([name in self.exclusive for name in range(len(self.names))], device=domain_BK.device)
        return torch.where(others, wanted_K.float(), domain_BK)

    def other_domain(self, domain_BK: Tensor, index_B: Tensor) -> Tensor:
        """Another domain for each sample, the same for the same index, [B, K]."""
        K = len(self.names)
        if isinstance(self.domain, Label):
            return self.one_hot((domain_BK.argmax(1) + 1 + index_B % (K - 1)) % K)
        all_KBK = torch.stack([self.changed(domain_BK, number) for number in range(K)])
        return all_KBK[index_B % K, torch.arange(len(index_B), device=index_B.device)]

    def recognized(self, x_BCHW: Tensor) -> Tensor:
        """The domains that the discriminator reads, of 0 and 1, [B, K]."""
        _, logits_BK = self.discriminator(x_BCHW)
        return self.one_hot(logits_BK.argmax(1)) if isinstance(self.domain, Label) else (logits_BK > 0).float()

    # Training: the discriminator's turns, then one of the generator.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        x, own_BK = batch["image"], self.domains(batch)
        wanted_BK = own_BK[torch.randperm(len(x), device=x.device)]
        if objective.name == "generator":
            return self.generator_loss(x, own_BK, wanted_BK)
        with torch.no_grad():
            fake = self.generator(x, wanted_BK)
        (on_real, logits_BK), (on_fake, _) = self.discriminator(x), self.discriminator(fake)
        # Its classifier learns from real images alone: of fakes it would learn the generator's mistakes.
        right = self.domain_loss(logits_BK, own_BK)
        loss = LOSSES["wasserstein"].discriminator(on_real, on_fake) + self.classification * right
        if self.penalty:
            loss = loss + self.penalty * gradient_penalty(lambda x: self.discriminator(x)[0], x, fake)
        return loss, {**outputs_log("discriminator", on_real, on_fake), "domain": right.detach()}

    def generator_loss(self, x: Tensor, own_BK: Tensor, wanted_BK: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        fake = self.generator(x, wanted_BK)
        on_fake, logits_BK = self.discriminator(fake)
        right, back = self.domain_loss(logits_BK, wanted_BK), F.l1_loss(self.generator(fake, own_BK), x)
        loss = LOSSES["wasserstein"].generator(on_fake) + self.classification * right + self.reconstruction * back
        logs = {"domain": right.detach(), "reconstruction": back.detach()}
        if self.identity:  # of those that chance asked for their own domain: it costs no further pass
            same_B = (wanted_BK == own_BK).all(1)
            off = ((fake - x).abs().flatten(1).mean(1) * same_B).sum() / same_B.sum().clamp_min(1)
            loss, logs["identity"] = loss + self.identity * off, off.detach()
        return loss, logs

    # Evaluation.

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "domain_accuracy", "reconstruction", "identity"

    def evaluate(self, batch: Batch) -> Statistics:
        x, own_BK = batch["image"], self.domains(batch)
        wanted_BK = self.other_domain(own_BK, batch["index"])
        fake = self.generator(x, wanted_BK)
        back, same = self.generator(fake, own_BK), self.generator(x, own_BK)
        return {
            "domain_accuracy": (self.recognized(fake) == wanted_BK).all(1).double().sum(),
            "reconstruction": (back - x).abs().flatten(1).double().mean(1).sum(),
            "identity": (same - x).abs().flatten(1).double().mean(1).sum(),
            "count": torch.tensor(len(x), device=x.device),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """domain_accuracy: the share of images that, translated to another domain, are of it to the discriminator (all
        attributes right). reconstruction: L1 after a translation there and back; identity: to the image's own domain.
        """
        return {name: float(statistics[name] / statistics["count"]) for name in self.metric_names}

    @property
    def analyses(self) -> Mapping[str, Callable[..., Report]]:
        return {**super().analyses, **({"truth": truth} if isinstance(self.domain, Label) else {})}

    # What a person asks for.

    def in_all_domains(self, x_BCHW: Tensor, own_BK: Tensor) -> Tensor:
        """[B, K, C, H, W]: in each class, or with each attribute the other way round."""
        return torch.stack([self.generator(x_BCHW, self.changed(own_BK, k)) for k in range(len(self.names))], 1)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """domain: what it is, as far as the discriminator can tell, [B, K]; images: in all domains [B, K, *shape]."""
        own_BK = self.recognized(batch["image"])
        return {"domain": own_BK, "images": self.in_all_domains(batch["image"], own_BK)}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        rows = torch.cat([batch["image"].unsqueeze(1), predicted["images"]], 1)
        shown = f"in the picture: as it is, then {', '.join(self.names)}"

        def picture_of(row: Tensor) -> Callable[[str], Any]:
            return lambda title: grid(self.spec.image.draw(row), len(row))

        return [
            Answer(f"{text or 'no attribute'}; {shown}", {self.domain_name: text}, picture_of(row))
            for text, row in zip(self.domain.draw(predicted["domain"]), rows, strict=True)
        ]

    def sample(self, count: int, *, image: Image | None = None, domain: Label | Attributes | None = None) -> Batch:
        """An image in all domains, or in the one that is given."""
        if image is None:
            raise UserError("dlx sample: translates an image: --given image=FILE, and domain=NAME for one domain")
        x: Any = image
        if domain is None:
            return {"image": self.in_all_domains(x, self.recognized(x))[0]}
        return {"image": self.generator(x, self.domains({self.domain_name: domain}))}

    def sample_from(self, batch: Batch) -> Batch:
        """Each image in another domain of chance; of classes with the `label` that it was to have."""
        x, own_BK = batch["image"], self.domains(batch)
        ways = len(self.names) * max(1, len(self.names) - 1)
        wanted_BK = self.other_domain(own_BK, torch.randint(ways, (len(x),), device=x.device))
        label = {"label": wanted_BK.argmax(1)} if isinstance(self.domain, Label) else {}
        return {"image": self.generator(x, wanted_BK), "source": x, **label}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Rows of an image and it in all domains."""
        x = batch["image"][:SHOWN]
        rows = torch.cat([x.unsqueeze(1), self.in_all_domains(x, self.domains(batch)[:SHOWN])], 1)
        return {"domains": grid(self.spec.image.draw(rows.flatten(0, 1)), rows.shape[1])}
