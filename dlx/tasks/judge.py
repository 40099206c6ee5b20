"""Judge: a trained classifier of real images reads the samples of a generator.

It tells how far the samples are from real images in the classifier's features (a Frechet distance, as FID is one in the
features of an Inception network; Heusel et al. 2017, arXiv:1706.08500), which classes it reads, and whether these agree
with what the samples were given: a class, a code, a text, or an image that was to change in one respect alone.
Shapes: N samples, M real images, F features, K classes, C codes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.random import generator, reseed
from dlx.runs.media import grid
from dlx.tasks.answer import Report
from dlx.tasks.spec import Image, Label, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlx.tasks.system import System

AT_A_TIME = 500  # samples that are made at once
HALVINGS = 5  # of the real images: a distance is the mean over them
GIVEN = ("label", "code")  # what samples were made of, in their batch
NONE = -1  # the class of a text that names none
SHOWN = 12  # samples of a class in the picture


def frechet(a_NF: Tensor, b_MF: Tensor) -> float:
    """Frechet distance of the Gaussians with the means and covariances of two sets of features: |m - m'|^2 +
    tr(S + S' - 2 (S S')^(1/2)).

    With S = A'A and S' = B'B the last trace is the sum of the singular values of A B', so that no root of a matrix is
    taken; A and B are the triangular factors of the centred features.
    """
    sets = [x.double() for x in (a_NF, b_MF)]
    mean = (sets[0].mean(0) - sets[1].mean(0)).square().sum()
    factors = [torch.linalg.qr(x - x.mean(0), mode="r").R / math.sqrt(len(x) - 1) for x in sets]
    traces = sum(factor.square().sum() for factor in factors)
    return max(0.0, float(mean + traces - 2 * torch.linalg.svdvals(factors[0] @ factors[1].T).sum()))


def halved(real_MF: Tensor, made_NF: Tensor) -> tuple[float, float]:
    """The Frechet distance of samples and real images, and that of real images to others, which is the floor: with few
    images it is not 0. All sets are of the same size, half of the real images or all samples, and both figures are
    means over some random halvings."""
    size = min(len(real_MF) // 2, len(made_NF))
    found = []
    for number in range(HALVINGS):
        rng = generator(0, "judge/halves", number)
        order_M, order_N = (torch.randperm(len(x), generator=rng) for x in (real_MF, made_NF))
        first, second = real_MF[order_M[:size]], real_MF[order_M[size : 2 * size]]
        found.append((frechet(made_NF[order_N[:size]], first), frechet(second, first)))
    made, floor = (sum(column) / HALVINGS for column in zip(*found, strict=True))
    return made, floor


def entropy(count_K: Tensor) -> float:
    """Of the distribution that counts make, in nats; at most ln K."""
    p_K = count_K.double() / count_K.sum()
    return float(torch.special.entr(p_K).sum())


def purity(code_N: Tensor, class_N: Tensor) -> tuple[float, Tensor]:
    """The share of samples that are of the most frequent class of their code, and how many of each code [C, K] are of
    each class."""
    count_CK = torch.zeros(int(code_N.max()) + 1, int(class_N.max()) + 1, dtype=torch.int64)
    count_CK.index_put_((code_N, class_N), torch.ones_like(code_N), accumulate=True)
    return float(count_CK.max(1).values.sum() / len(code_N)), count_CK


@torch.no_grad()
def judge(opened: Any, *, run: Any, samples: int = 2000, seed: int = 0) -> Report:
    """opened: the run that makes images, an `Opened` (dlx/training/trained.py). run: that of the classifier, opened;
    `run=NAME` on the command line. samples: how many are made. seed: of their draws.

    The real images are those of the test split, which neither has seen. A system that makes samples of texts or images
    (`System.sample_from`) gets those of the test split. What is compared depends on what the samples were given:

    - `label`, one of the classifier's classes: `accuracy` is how often it agrees.
    - a text: the class asked for is the one that the text names first. `accuracy` as before, over the texts that name
      a class; `accuracy_of_real` is that of the real images with their own texts, which bounds it.
    - `source`, an image that was to be changed in what the classifier does not read: `kept` is how often the class is
      read that is read of the source.
    - `code`, a group without a name: `purity` is the share of samples that are of the most frequent class of their
      code.

    Raises UserError where the classifier reads other images.
    """
    if samples < 2:
        raise UserError(f"--analysis judge samples: must be at least 2, got {samples}")
    maker, reader = opened.system, run.system
    name, label = image_name(maker), class_name(reader, run.name)
    inputs = reader.spec.of_kind(Image)
    read_name, entry = next(iter(inputs.items()))
    made_entry = maker.spec.entries[name]
    if len(inputs) > 1 or not entry.is_like(made_entry):
        raise UserError(f"--analysis judge run: {run.name} reads {entry}, and this run makes {made_entry}")
    classes = reader.spec.entries[label].classes

    def read(image: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, F] and classes [N] of normalized images, which are rounded to the levels that stored ones have:
        else a classifier could tell samples by their fractions."""
        batch = {read_name: entry.normalize(made_entry.levels(image).to(torch.float32)).to(reader.device)}
        return reader.embed(batch).float().cpu(), reader.predict(batch)["label"].cpu()

    reseed(seed, "sample", device=maker.device)
    parts: list[dict[str, Tensor]] = []
    for batch in samples_of(opened, samples):
        features_NF, class_N = read(batch[name])
        own = {key: batch[key].cpu() for key in GIVEN if key in batch}
        if (asked_N := asked_classes(maker, batch, classes)) is not None:
            own["asked"] = asked_N
        elif "source" in batch:
            own["of_source"] = read(batch["source"])[1]
        parts.append({"features": features_NF, "read": class_N, "image": batch[name].cpu(), **own})
    made = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    if "asked" in made and not (made["asked"] != NONE).any():
        del made["asked"]
    made_NF, read_N = made["features"], made["read"]

    texts = maker.spec.of_kind(Tokens)
    rows = list(opened.loader("test", {name: made_entry, **texts}).eval_batches())
    real_MF, real_M = (torch.cat(column) for column in zip(*(read(batch[name]) for batch in rows), strict=True))
    if len(real_MF) < 4:
        raise UserError(f"--analysis judge: needs at least 4 test images, got {len(real_MF)}")
    distance, floor = halved(real_MF, made_NF)
    count_K, real_K = (torch.bincount(found, minlength=len(classes)) for found in (read_N, real_M))
    metrics = {
        "frechet": distance, "frechet_of_real": floor, "entropy": entropy(count_K), "entropy_of_real": entropy(real_K),
    }  # fmt: skip
    shares = [
        {"class": classes[k], "samples": float(count_K[k] / len(read_N)), "real": float(real_K[k] / len(real_M))}
        for k in range(len(classes))
    ]
    tables: dict[str, Any] = {"read": shares}
    if "asked" in made:
        metrics["accuracy"] = agreement(read_N, made["asked"])
        if texts:
            own_M = torch.cat([asked_classes(maker, batch, classes) for batch in rows])  # type: ignore[misc]
            metrics["accuracy_of_real"] = agreement(real_M, own_M)
    if "of_source" in made:
        metrics["kept"] = agreement(read_N, made["of_source"])
    if "code" in made:
        metrics["purity"], count_CK = purity(made["code"], read_N)
        tables["codes"] = code_rows(count_CK, classes)
    group_N = next(made[key] for key in ("code", "asked", "label", "read") if key in made)
    picture = rows_of(made_entry.draw(made["image"][group_N != NONE]), group_N[group_N != NONE])
    return Report(
        tables=tables,
        media={"judged": picture},
        metrics={f"judge/{key}": value for key, value in metrics.items()},
        data={"judge": run.name, "features": made_NF.shape[1], "samples": samples, "real": len(real_MF)},
    )


def samples_of(opened: Any, count: int) -> Iterator[dict[str, Any]]:
    """Batches of so many samples in all: of the inputs of the test split, again and again, where the system makes them
    of those."""
    system, made = opened.system, 0
    while made < count:
        if not system.defines("sample_from"):
            yield sampled(system, size := min(AT_A_TIME, count - made))
            made += size
            continue
        before = made
        for batch in opened.loader("test").eval_batches():
            rows = {key: value[: count - made] for key, value in batch.items()}
            if made < count:
                yield system.sample_from(rows)
            made += len(rows["index"])
        if made == before:
            raise UserError("--analysis judge: there are no test data")


def asked_classes(maker: System, batch: dict[str, Any], classes: tuple[str, ...]) -> Tensor | None:
    """The classes that samples were to be of, int64 [N], NONE where a text names none; None where they were not asked
    for one of these classes."""
    for name, entry in maker.spec.of_kind(Tokens).items():
        if name in batch and entry.tokenizer is not None:
            return torch.tensor([first_named(text, classes) for text in entry.draw(batch[name])])
    labels = [entry.classes for entry in maker.spec.of_kind(Label).values()]
    if "label" not in batch or (labels and classes not in labels):
        return None
    asked_N: Tensor = batch["label"].cpu()
    return asked_N


def first_named(text: str, classes: Sequence[str]) -> int:
    """The class whose words come first in a text, the longest of those that begin there; NONE where there is none."""
    places = {number: f" {text} ".find(f" {name} ") for number, name in enumerate(classes)}
    found = [(place, -len(classes[number]), number) for number, place in places.items() if place >= 0]
    return min(found)[2] if found else NONE


def agreement(read_N: Tensor, asked_N: Tensor) -> float:
    """The share of samples that are of the class that they were asked for, of those that were asked for one."""
    counted_N = asked_N != NONE
    return float((read_N == asked_N)[counted_N].double().mean())


def image_name(system: System) -> str:
    """The entry of images that a system makes."""
    names = list(system.spec.of_kind(Image))
    if not names:
        raise UserError(f"--analysis judge: {type(system).__name__} makes no images")
    return names[0]


def class_name(system: System, run: str) -> str:
    """The label that a classifier answers with. Raises UserError for what is none, or has no features."""
    labels = [name for name in system.spec.targets if isinstance(system.spec.entries[name], Label)]
    if not labels or not system.spec.of_kind(Image):
        raise UserError(f"--analysis judge run: {run} is no classifier of images: {type(system).__name__}")
    if "probe" not in system.analyses:
        raise UserError(f"--analysis judge run: {type(system).__name__} has no features")
    return labels[0]


def sampled(system: System, count: int) -> dict[str, Any]:
    """A batch of samples: of an iterator the last one."""
    found = system.sample(count)
    if isinstance(found, dict):
        return found
    batch: dict[str, Any] = {}
    for batch in found:  # noqa: B007
        pass
    return batch


def code_rows(count_CK: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of each code the class that is read most often, and its share."""
    found = []
    for code, count_K in enumerate(count_CK):
        most = int(count_K.argmax())
        share = float(count_K[most] / count_K.sum()) if count_K.sum() else math.nan
        found.append({"code": code, "class": classes[most], "samples": int(count_K.sum()), "share": share})
    return found


def rows_of(pixels_NHWC: Tensor, group_N: Tensor) -> Any:
    """A row of samples for each group, white where there are fewer."""
    rows = []
    for group in range(int(group_N.max()) + 1):
        own = pixels_NHWC[group_N == group][:SHOWN]
        rows.append(torch.cat([own, own.new_full((SHOWN - len(own), *pixels_NHWC.shape[1:]), 255)]))
    return grid(torch.cat(rows), columns=SHOWN)
