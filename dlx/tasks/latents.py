"""What models with latents share: half-covered images completed by decoding codes, and pictures of the codes.

Shapes: N samples, Z numbers of a code, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.runs.draw import subplots
from dlx.runs.media import grid
from dlx.tasks.spec import Image

if TYPE_CHECKING:
    from dlx.runs.draw import Figure
    from dlx.tasks.answer import Answer
    from dlx.tasks.spec import Entry
    from dlx.tasks.system import Batch

SHOWN = 10  # images of a picture of reconstructions; numbers of a code that are traversed
ROWS = 6  # interpolations
STEPS = 9  # of an interpolation, a traversal
SIDE = 15  # of a grid of codes
REACH = 2.5  # standard deviations of the prior that a traversal goes to
POINTS = 1000  # codes of a scatter
PRIOR_DRAWS = 2000  # from which the quantiles of a prior are taken

Decode = Callable[[Tensor], Tensor]
"""From codes [N, Z] to normalized samples [N, *shape]."""


def complete_half(
    entry: Entry,
    name: str,
    path: Path,
    count: int,
    steps: int,
    again: Callable[[Tensor], tuple[Tensor, Tensor]],
    device: torch.device,
) -> Iterator[Batch]:
    """Images whose upper half is the file's; each step gives what is there so far.

    again: from images to a new draw of each, by its code, and to that draw's mean, which is what is shown.
    """
    if not isinstance(entry, Image):
        raise UserError("--given half: is an image, and this run reads none")
    if steps < 1:
        raise UserError(f"--given steps: must be at least 1, got {steps}")
    x = entry.read_exact(path).to(device).expand(count, -1, -1, -1).clone()
    return _complete(x, x.shape[2] // 2, name, steps, again)


@torch.no_grad()
def _complete(
    x: Tensor, given: int, name: str, steps: int, again: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Iterator[Batch]:
    kept = x[:, :, :given]
    x[:, :, given:] = torch.rand_like(x[:, :, given:]).round()
    for _ in range(steps):
        drawn, mean = again(x)
        x = torch.cat([kept, drawn[:, :, given:]], 2)
        yield {name: torch.cat([kept, mean[:, :, given:]], 2)}


def draw_pair(entry: Entry, x: Tensor, rebuilt: Tensor, answers: list[Answer]) -> list[Answer]:
    """The answers with a picture each: the image, and beside it what its code gives."""
    if not isinstance(entry, Image):
        return answers
    pairs = torch.stack([entry.draw(x), entry.draw(rebuilt)], 1)

    def picture_of(pair: Tensor) -> Callable[[str], Any]:
        return lambda title: grid(pair, columns=2)

    return [replace(answer, picture=picture_of(pair)) for answer, pair in zip(answers, pairs, strict=True)]


def latent_pictures(
    entry: Entry, x: Tensor, codes_NZ: Tensor, prior_NZ: Tensor, decode: Decode, label_N: Tensor | None = None
) -> dict[str, Any]:
    """Pictures of samples x and their codes: the codes beside draws of the prior; of images also reconstructions under
    the originals, interpolations, and a grid of codes (Z = 2) or traversals of each number."""
    media: dict[str, Any] = {"codes": draw_codes(codes_NZ, prior_NZ, label_N)}
    if not isinstance(entry, Image):
        return media
    x = x[:SHOWN]
    shown = [entry.draw(x), entry.draw(decode(codes_NZ[:SHOWN]))]
    media["reconstructions"] = grid(torch.cat(shown), columns=len(x))
    rows = min(ROWS, len(codes_NZ) // 2)
    if rows:
        path_NSZ = between(codes_NZ[:rows], codes_NZ[rows : 2 * rows], STEPS)
        media["interpolations"] = grid(entry.draw(decode(path_NSZ.flatten(0, 1))), columns=STEPS)
    if codes_NZ.shape[1] == 2:
        media["latent-grid"] = grid(entry.draw(decode(quantile_grid(prior_NZ, SIDE))), columns=SIDE)
    else:
        path_NSZ = traversals(codes_NZ, prior_NZ, STEPS)
        media["traversals"] = grid(entry.draw(decode(path_NSZ.flatten(0, 1))), columns=STEPS)
    return media


def between(start_NZ: Tensor, end_NZ: Tensor, steps: int) -> Tensor:
    """Straight lines from one code to the other, both ends included, [N, S, Z]."""
    return start_NZ.unsqueeze(1).lerp(end_NZ.unsqueeze(1), torch.linspace(0, 1, steps, device=start_NZ.device)[:, None])


def quantile_grid(prior_N2: Tensor, side: int) -> Tensor:
    """Codes on a grid of the prior's quantiles in the middle of each of `side` equal shares, [side * side, 2], the
    second number falling from the first row to the last."""
    shares = (torch.arange(side, device=prior_N2.device) + 0.5) / side
    across, up = (prior_N2[:, axis].float().quantile(shares) for axis in range(2))
    return torch.stack([across.repeat(side), up.flip(0).repeat_interleave(side)], -1)


def traversals(codes_NZ: Tensor, prior_NZ: Tensor, steps: int) -> Tensor:
    """The first code with one number at a time moved through the prior's range, [N, S, Z]: a row for each of the
    numbers that vary most over the codes, the most first."""
    numbers = codes_NZ.var(0, unbiased=False).sort(descending=True).indices[:SHOWN]
    path_NSZ = codes_NZ[0].repeat(len(numbers), steps, 1)
    reach = REACH * prior_NZ.std()
    line_S = torch.linspace(-1, 1, steps, device=codes_NZ.device) * reach
    rows = torch.arange(len(numbers), device=codes_NZ.device)
    path_NSZ[rows, :, numbers] = line_S.expand(len(numbers), -1)
    return path_NSZ


def draw_codes(codes_NZ: Tensor, prior_NZ: Tensor, label_N: Tensor | None = None, title: str = "") -> Figure:
    """The codes beside draws of the prior, on the same axes: the two numbers that vary most, or a histogram of one."""
    codes_NZ, prior_NZ = codes_NZ[:POINTS].float().cpu(), prior_NZ[:POINTS].float().cpu()
    colour_N = "tab:blue" if label_N is None else [f"C{n % 10}" for n in label_N[:POINTS].tolist()]
    figure, axes = subplots(1, 2, size=(7.5, 3.9), sharex=True, sharey=True)
    width = codes_NZ.shape[1]
    numbers = codes_NZ.var(0, unbiased=False).sort(descending=True).indices[:2].sort().values.tolist()
    parts = (("codes", codes_NZ, colour_N), ("draws of the prior", prior_NZ, "0.55"))
    for axis, (name, part_NZ, colour) in zip(axes, parts, strict=True):
        if width == 1:
            axis.hist(part_NZ[:, 0].numpy(), bins=40, density=True, color="0.55" if colour == "0.55" else "tab:blue")
            axis.set(title=name, xlabel="z")
            continue
        x, y = (part_NZ[:, number].numpy() for number in numbers)
        axis.scatter(x, y, s=7, c=colour, alpha=0.65, linewidths=0)
        axis.set(title=name, xlabel=f"z{numbers[0] + 1}", ylabel=f"z{numbers[1] + 1}", aspect="equal")
    if title:
        figure.suptitle(title)
    return figure
