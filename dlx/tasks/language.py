"""Language: logits [B, L, V] of the next token at each position of tokens [B, L], which are their own targets."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.runs.draw import drawable, subplots, visible
from dlx.tasks.system import Answer, Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from dlx.tasks.spec import Tokens
    from dlx.tasks.system import Batch, Statistics, System

SHOWN = 400  # tokens of a text that a picture shows
COLUMNS = 80  # letters of its lines


@cache
def _byte_lengths(tokens: Tokens, device: torch.device) -> Tensor:
    """Bytes of each token, float64 [V]; moved once."""
    return torch.tensor(tokens.load_tokenizer().byte_lengths(), dtype=torch.float64, device=device)


def only_cross_entropy(what: str, loss: str | None) -> None:
    """Raises ValueError for another loss of tokens."""
    if loss not in (None, "cross_entropy"):
        raise ValueError(f"loss must be cross_entropy for {what}, got {loss!r}")


def token_mean(loss_BL: Tensor, counts_BL: Tensor, batch: Batch) -> Tensor:
    """The mean loss of the tokens that count (bool), each times its text's weight where there is one."""
    if "weight" in batch:
        loss_BL = loss_BL * batch["weight"].unsqueeze(1)
    return (loss_BL * counts_BL).sum() / counts_BL.sum().clamp_min(1)


class NextToken:
    """The head of a language model: cross-entropy of each token given those before it, in nats, mean over tokens.

    Padding does not count. given: so many tokens at the beginning of a text are read and not predicted.
    Metrics: loss, perplexity = exp(loss), and where the tokens have a tokenizer bits_per_byte, which compares texts in
    different tokens.
    """

    monitor = ("val/loss", "min")
    gaps: ClassVar[dict[str, int]] = {"loss": -1}

    def __init__(self, tokens: Tokens, input_name: str, given: int = 1) -> None:
        if tokens.length <= given:
            raise ValueError(f"texts must be longer than the {given} tokens that are given, got {tokens.length}")
        self.tokens, self.input_name, self.given = tokens, input_name, given
        bits = ("bits_per_byte",) if tokens.tokenizer is not None else ()
        self.metric_names: tuple[str, ...] = ("loss", "perplexity", *bits)

    def _per_token(self, logits_BLV: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each predicted token, and where it counts, [B, L - given]."""
        targets_BL = batch[self.input_name][:, self.given :]
        logits_BLV = logits_BLV[:, self.given - 1 : -1]
        loss_N = F.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten(), reduction="none")
        return loss_N.view_as(targets_BL), self.tokens.valid(targets_BL)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        if self.tokens.pad is None and "weight" not in batch:
            targets_BL = batch[self.input_name][:, self.given :]
            return F.cross_entropy(output[:, self.given - 1 : -1].flatten(0, 1), targets_BL.flatten())
        return token_mean(*self._per_token(output, batch), batch)

    def counted(self, batch: Batch) -> Tensor | None:
        return None if self.tokens.pad is None else self.tokens.valid(batch[self.input_name][:, self.given :]).sum()

    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {}

    def statistics(self, output: Tensor, batch: Batch) -> Statistics:
        loss_BL, counts_BL = self._per_token(output.float(), batch)
        found = {"loss": (loss_BL * counts_BL).double().sum(), "count": counts_BL.sum()}
        if self.tokens.tokenizer is not None:
            targets_BL = batch[self.input_name][:, self.given :]
            found["bytes"] = _byte_lengths(self.tokens, targets_BL.device)[targets_BL].sum()
        return found

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        total = float(statistics["loss"])
        loss = total / max(1, int(statistics["count"]))
        found = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if "bytes" in statistics:
            found["bits_per_byte"] = total / math.log(2) / max(1.0, float(statistics["bytes"]))
        return found

    def predict(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """surprisal: bits of each token given those before it, [B, L], of the first ones 0; next: the probabilities of
        the token after the last, [B, V]."""
        loss_BL, counts_BL = self._per_token(output.float(), batch)
        surprisal_BL = F.pad(loss_BL * counts_BL / math.log(2), (self.given, 0))
        last_B = self.tokens.valid(batch[self.input_name]).sum(1).clamp_min(1) - 1
        after_BV = output[torch.arange(len(output), device=output.device), last_B].float().softmax(-1)
        return {"surprisal": surprisal_BL, "next": after_BV}

    def answer(self, system: System, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        answers = []
        for tokens, surprisal_L, next_V in zip(
            batch[self.input_name], predicted["surprisal"], predicted["next"], strict=True
        ):
            valid_L = self.tokens.valid(tokens)
            pieces = self.pieces(tokens[valid_L])
            bits = surprisal_L[valid_L].tolist()
            probable = next_V.topk(min(3, len(next_V)))
            follows = dict(zip(self.pieces(probable.indices), probable.values.tolist(), strict=True))
            mean = sum(bits[self.given :]) / max(1, len(bits) - self.given)
            line = f"{mean:.3f} bits a token; next " + "  ".join(f"{p!r} {share:.1%}" for p, share in follows.items())
            found = {"tokens": pieces, "surprisal": bits, "bits_per_token": mean, "next": follows}
            answers.append(Answer(line, found, partial(draw_surprisal, pieces, bits)))
        return answers

    def pieces(self, tokens: Tensor) -> list[str]:
        """What each token stands for, as text."""
        return [text for token in tokens.tolist() for text in self.tokens.draw(torch.tensor([[token]]))]

    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]:
        """How surprising each token of a held-out text is."""
        tokens = batch[self.input_name][0]
        bits = self.predict(output[:1], {self.input_name: batch[self.input_name][:1]})["surprisal"][0]
        valid = self.tokens.valid(tokens)
        return {"surprisal": draw_surprisal(self.pieces(tokens[valid]), bits[valid].tolist(), "a held-out text")}

    def report(self, statistics: Statistics) -> Report:
        return Report()


def draw_surprisal(pieces: Sequence[str], bits: Sequence[float], title: str = "") -> Figure:
    """The tokens of a text in lines, each on a ground that is darker the more bits it takes; at most SHOWN."""
    from matplotlib import colormaps

    lines: list[list[tuple[int, str, float]]] = [[]]
    column = 0
    for piece, number in list(zip(pieces, bits, strict=True))[:SHOWN]:
        shown = visible(piece)
        if lines[-1] and (lines[-1][-1][1].endswith("⏎") or column + len(shown) > COLUMNS):
            lines.append([])
            column = 0
        for start in range(0, len(shown), COLUMNS):  # a piece that is longer than a line goes on in the next
            if start:
                lines.append([])
                column = 0
            part = shown[start : start + COLUMNS]
            lines[-1].append((column, part, number))
            column += len(part)
    most = max(8.0, max(bits[:SHOWN], default=0.0))
    width = max(40, *(line[-1][0] + len(line[-1][1]) for line in lines if line), 0)
    figure, axes = subplots(size=(0.1 * width + 0.9, 0.24 * len(lines) + 0.9))
    colors = colormaps["YlOrRd"]
    for row, line in enumerate(lines):
        for start, shown, number in line:
            share = number / most
            axes.add_patch(_rectangle(start, row, len(shown), colors(0.85 * share)))
            color = "white" if share > 0.75 else "black"
            for offset, letter in enumerate(shown):
                axes.text(
                    start + offset + 0.5, row + 0.5, letter, family="monospace", fontsize=8, color=color,
                    ha="center", va="center",
                )  # fmt: skip
    axes.set(xlim=(0, width), ylim=(len(lines), 0))
    axes.set_axis_off()
    bar = figure.colorbar(_scale(colors, most), ax=axes, location="right", fraction=0.02, pad=0.01, aspect=8)
    bar.set_label("bits")
    rest = f", the first {SHOWN} of {len(pieces):,}" if len(pieces) > SHOWN else ""
    name = drawable(title if len(title) <= COLUMNS else f"{title[:COLUMNS]}…")
    axes.set_title(f"{name}{': ' if name else ''}surprisal of each token{rest}", fontsize=9)
    return figure


def _rectangle(x: float, y: float, width: float, color: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, 1, facecolor=color, edgecolor="white", linewidth=0.6)


def _scale(colors: Any, most: float) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    shown = LinearSegmentedColormap.from_list("bits", [colors(0.85 * n / 20) for n in range(21)])
    return ScalarMappable(Normalize(0, most), shown)
