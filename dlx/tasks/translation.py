"""Translation: a target text token by token, given a source text. Each target lies between the marks begin and end.

Shapes: B batch, S source tokens, L target tokens, V vocabulary.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.config import checks
from dlx.config.extras import require
from dlx.runs.draw import drawable, subplots, visible
from dlx.runs.media import Table
from dlx.tasks.generation import Cache, beam_search, without_marks
from dlx.tasks.language import only_cross_entropy, token_mean
from dlx.tasks.spec import LabeledTokens, Tokens, Translations
from dlx.tasks.supervised import Supervised, TaskHead
from dlx.tasks.system import Answer, Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from dlx.tasks.spec import Entry
    from dlx.tasks.system import Batch, Statistics, System

AnyTexts = Translations | LabeledTokens
"""The specs of an encoder-decoder whose encoder can also classify texts."""


class Translation:
    """The head of an encoder-decoder: cross-entropy of each target token given the source and those before it, in nats,
    mean over tokens, with label smoothing in training alone.

    Metrics: loss, accuracy (of tokens, the true ones before them given), exact_match (share of texts that greedy search
    writes without a fault), bleu (0 to 100, where the system asks for it).
    """

    monitor = ("val/exact_match", "max")
    gaps: ClassVar[dict[str, int]] = {}

    def __init__(self, system: Translator) -> None:
        source, target = (system.spec.entries[name] for name in ("source", "target"))
        assert isinstance(source, Tokens)
        assert isinstance(target, Tokens)
        if target.begin is None or target.end is None or target.pad is None:
            raise ValueError("spec must have targets with the marks begin, end and pad")
        self.system, self.source, self.tokens = system, source, target
        self.begin, self.end, self.pad = target.begin, target.end, target.pad
        self.metric_names: tuple[str, ...] = ("loss", "accuracy", "exact_match", *(("bleu",) if system.bleu else ()))
        if system.bleu:
            self.monitor = ("val/bleu", "max")

    def _per_token(self, logits_BLV: Tensor, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, where it counts, and where the most probable token is right; [B, L]."""
        targets_BL = batch["target"][:, 1:]
        loss_N = F.cross_entropy(
            logits_BLV.flatten(0, 1), targets_BL.flatten(), reduction="none", label_smoothing=smoothing
        )
        counts_BL = self.tokens.valid(targets_BL)
        return loss_N.view_as(targets_BL), counts_BL, (logits_BLV.argmax(-1) == targets_BL) & counts_BL

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        loss_BL, counts_BL, _ = self._per_token(output, batch, self.system.label_smoothing)
        return token_mean(loss_BL, counts_BL, batch)

    def counted(self, batch: Batch) -> Tensor:
        return self.tokens.valid(batch["target"][:, 1:]).sum()

    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        targets_BL = batch["target"][:, 1:]
        counts_BL = self.tokens.valid(targets_BL)
        right_BL = (output.argmax(-1) == targets_BL) & counts_BL
        return {"accuracy": right_BL.sum() / counts_BL.sum().clamp_min(1)}

    def statistics(self, output: Tensor, batch: Batch) -> Statistics:
        loss_BL, counts_BL, right_BL = self._per_token(output.float(), batch, 0.0)
        made_BL = self.system.generate(batch["source"])
        found: Statistics = {
            "loss": (loss_BL * counts_BL).double().sum(),
            "right": right_BL.sum(),
            "count": counts_BL.sum(),
            "exact": self.equal(made_BL, batch["target"]).sum(),
            "samples": torch.tensor(len(made_BL), device=made_BL.device),
        }
        if self.system.bleu:
            texts = (self.tokens.draw(made_BL), self.tokens.draw(batch["target"]))
            found["texts"] = list(zip(*texts, strict=True))
        return found

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        count, samples = max(1, int(statistics["count"])), max(1, int(statistics["samples"]))
        found = {
            "loss": float(statistics["loss"]) / count,
            "accuracy": int(statistics["right"]) / count,
            "exact_match": int(statistics["exact"]) / samples,
        }
        return found | ({"bleu": bleu(statistics["texts"])} if "texts" in statistics else {})

    def equal(self, made_BL: Tensor, target_BL: Tensor) -> Tensor:
        """Which texts are the same but for their padding, bool [B]."""
        length = max(made_BL.shape[1], target_BL.shape[1])
        made, target = (F.pad(x, (0, length - x.shape[1]), value=self.pad) for x in (made_BL, target_BL))
        return (made == target).all(1)

    def predict(self, output: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """target: what beam search writes, filled up to full length; attention, where the system has it."""
        memory = self.system.encode(batch["source"])
        made_BL = self.system.generate(batch["source"], beam=self.system.beam, memory=memory)
        found = {"target": F.pad(made_BL, (0, self.tokens.length - made_BL.shape[1]), value=self.pad)}
        weights_BLS = self.system.attention(made_BL[:, :-1], memory)
        return found if weights_BLS is None else {**found, "attention": weights_BLS}

    def answer(self, system: System, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        answers = []
        for number, text in enumerate(self.tokens.draw(predicted["target"])):
            picture = None
            if "attention" in predicted:
                rows = (predicted["attention"][number], batch["source"][number], predicted["target"][number])
                picture = partial(self.draw_attention, *rows)
            answers.append(Answer(text, {"text": text}, picture))
        return answers

    def draw_attention(self, weights_LS: Tensor, source_S: Tensor, made_L: Tensor, title: str = "") -> Figure:
        """The source across, what was written down: the darker, the more that step read of a token."""
        columns, rows = self._pieces(self.source, source_S), self._pieces(self.tokens, made_L[1:])[: len(weights_LS)]
        width = max(3.6, 0.2 * len(columns) + 2)
        figure, axes = subplots(size=(width, 0.2 * len(rows) + 1.5))
        axes.imshow(
            weights_LS[: len(rows), : len(columns)].detach().float().cpu().numpy(), cmap="Blues", vmin=0, vmax=1
        )
        axes.set_xticks(
            range(len(columns)), columns, rotation=90 if max(map(len, columns), default=0) > 1 else 0, fontsize=8
        )
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.grid(visible=False)
        axes.set(xlabel="source", ylabel="written")
        most = int(12 * width)  # letters, so that nothing is cut off
        name = title if len(title) <= most else f"{title[:most]}…"
        axes.set_title(drawable(name) or "what each step read", fontsize=9)
        return figure

    def _pieces(self, tokens: Tokens, row: Tensor) -> list[str]:
        """What each token up to the end stands for."""
        names = {tokens.begin: "<begin>", tokens.end: "<end>"}
        found = []
        for token in row.tolist():
            if token == tokens.pad:
                break
            found.append(names.get(token) or visible(tokens.draw(torch.tensor([[token]]))[0]))
            if token == tokens.end:
                break
        return found

    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]:
        """A table of translations, the wrong ones first; where there is attention, a map of the first text."""
        source_BS, target_BL = batch["source"][:32], batch["target"][:32]
        memory = self.system.encode(source_BS)
        made_BL = self.system.generate(source_BS, memory=memory)
        first = self.equal(made_BL, target_BL).int().argsort(stable=True)[:16]
        made, true = (self.tokens.draw(texts[first]) for texts in (made_BL, target_BL))
        rows = list(zip(self.source.draw(source_BS[first]), made, true, strict=True))
        media: dict[str, Any] = {"translations": Table(["source", "made", "true"], rows)}
        weights_BLS = self.system.attention(made_BL[:1, :-1], {name: value[:1] for name, value in memory.items()})
        if weights_BLS is not None:
            media["attention"] = self.draw_attention(weights_BLS[0], source_BS[0], made_BL[0])
        return media

    def report(self, statistics: Statistics) -> Report:
        return Report()


class Translator(Supervised):
    """Base of all encoder-decoders. A subclass defines `encode` and `decode`.

    label_smoothing: share of the target that all tokens of the vocabulary have together. beam: hypotheses of `dlx
    predict`; evaluations use greedy search, which is 1. bleu: whether evaluations compute it (sacrebleu, extra nlp);
    "best" is then the best BLEU.
    """

    takes = ("weight", "soft_label")

    def __init__(
        self,
        *,
        spec: AnyTexts,
        label_smoothing: float = 0.0,
        beam: int = 1,
        bleu: bool = False,
        loss: str | None = None,
    ) -> None:
        checks.between("[0, 1)", label_smoothing=label_smoothing)
        checks.at_least(1, beam=beam)
        if bleu:
            require("model.bleu", "nlp", "sacrebleu")
        # Plain attributes of a Module can be set before its own constructor ran, and the head reads them.
        self.label_smoothing, self.beam, self.bleu = label_smoothing, beam, bleu
        super().__init__(spec=spec, loss=loss)

    def make_target(self, entry: Entry, loss: str | None) -> tuple[int, TaskHead]:
        if isinstance(entry, Tokens):
            only_cross_entropy("tokens", loss)
            return entry.vocabulary, Translation(self)
        return super().make_target(entry, loss)

    def encode(self, source_BS: Tensor) -> Cache:
        """What the decoder knows of the sources: tensors by name, the batch first."""
        raise NotImplementedError(f"{type(self).__name__} defines no encode")

    def decode(self, target_BL: Tensor, memory: Cache, *, cached: bool = False) -> Tensor:
        """Logits [B, L, V] of the token after each of the target's, which begin with the mark begin.

        memory: the output of `encode`. cached: it also holds what earlier calls left, after which these tokens go on,
        and is brought up to date.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no decode")

    def attention(self, target_BL: Tensor, memory: Cache) -> Tensor | None:
        """How much of each source token each step of the decoder read, [B, L, S], rows sum to one; None without.

        memory: the output of `encode`, which stays as it is.
        """
        return None

    def output(self, batch: Batch) -> Tensor:
        """The true target tokens are given but the last (teacher forcing). Without a target there is none."""
        if not isinstance(self.target, Translation):
            return super().output(batch)
        if "target" not in batch:
            return torch.empty(0)
        return self.decode(batch["target"][:, :-1], self.encode(batch["source"]))

    def next_logits(self, tokens: Tensor, cache: Cache | None) -> Tensor:
        """Logits of the next token of a target, [B, V]; marks other than the end are never next."""
        assert cache is not None
        assert isinstance(self.target, Translation)
        return without_marks(self.decode(tokens, cache, cached=True)[:, -1], self.target.tokens)

    @torch.no_grad()
    def generate(
        self, source_BS: Tensor, *, beam: int = 1, length: int | None = None, memory: Cache | None = None
    ) -> Tensor:
        """The best targets that beam search finds, with their marks, int64 [B, L]; at most `length` tokens, by default
        those of the longest target. memory: the output of `encode` where it is there, which stays as it is."""
        head = self.target
        assert isinstance(head, Translation)
        memory = self.encode(source_BS) if memory is None else memory
        start_B1 = torch.full((len(source_BS), 1), head.begin, device=source_BS.device)
        steps = (length or head.tokens.length) - 1
        made_BL, _ = beam_search(self.next_logits, start_B1, steps, beam=beam, end=head.end, pad=head.pad, cache=memory)
        return made_BL


def bleu(texts: Sequence[tuple[str, str]]) -> float:
    """Corpus BLEU, 0 to 100, of (made, true) texts, by sacrebleu with its own tokenization (Post 2018,
    arXiv:1804.08771)."""
    from sacrebleu import corpus_bleu

    if not texts:
        return math.nan
    made, true = (list(column) for column in zip(*texts, strict=True))
    return float(corpus_bleu(made, [true]).score)
