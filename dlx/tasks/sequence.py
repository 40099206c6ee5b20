"""Sequence models: features after each step of a sequence, from that step and those before it alone.

What they learn is what the data hold. Texts without a target: the next token (a language model). Texts, sequences of
numbers or images (a row is a step) with a label or a number: the answer after the last step. Texts with a class at each
token: that class. Series of real values: the next value.

Shapes: B batch, L steps, D features, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlx.config.errors import UserError
from dlx.runs.media import Text
from dlx.tasks.generation import Cache, beam_search, check_sampling, generate, without_marks
from dlx.tasks.language import NextToken, only_cross_entropy
from dlx.tasks.series import NextValue
from dlx.tasks.spec import (
    Entry,
    LabeledImages,
    LabeledTokens,
    RealSequence,
    RegressionSequences,
    Series,
    Streams,
    TaggedTokens,
    TokenLabels,
    Tokens,
)
from dlx.tasks.supervised import Supervised, TaskHead
from dlx.tasks.tagging import Tagging

if TYPE_CHECKING:
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, Statistics

AnySequences = LabeledTokens | TaggedTokens | Streams | Series | RegressionSequences | LabeledImages
"""The specs of a model that reads any sequence, the first that fits: labels before the texts alone."""

SAMPLED = 200  # tokens


class SequenceModel(Supervised):
    """Base of all sequence models. A subclass defines `features(x, cache)` and makes `self.out` with `make_head`.

    given: steps that are read before the first is predicted.
    """

    given: int = 1
    out: nn.Module

    def __init__(self, *, spec: Spec, loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        if not spec.targets:
            self.num_outputs, self.target = self.make_target(self.input, loss)

    def make_target(self, entry: Entry, loss: str | None) -> tuple[int, TaskHead]:
        if isinstance(entry, TokenLabels):
            only_cross_entropy("classes of tokens", loss)
            return len(entry.classes), Tagging(self.spec, self.input_name, self.target_name)
        if isinstance(entry, Tokens):
            only_cross_entropy("tokens", loss)
            return entry.vocabulary, NextToken(entry, self.input_name, self.given)
        if isinstance(entry, RealSequence):
            return entry.size, NextValue(entry, self.input_name, loss or "mse", self.given)
        return super().make_target(entry, loss)

    @property
    def is_language_model(self) -> bool:
        return isinstance(self.target, NextToken)

    @property
    def answers_each_step(self) -> bool:
        """Whether the head reads the features of every step, or those of the last one alone."""
        return isinstance(self.target, NextToken | NextValue | Tagging)

    def features(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Features [B, L, D] after each step of x, the batch's input.

        cache: what earlier steps left (dlx/tasks/generation.py); x then goes on after them, and they are brought up to
        date. An empty one is filled.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no features")

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, K] or, of a classifier or regressor of whole sequences, [B, K]."""
        h_BLD = self.features(x)
        output: Tensor = self.out(h_BLD if self.answers_each_step else self.last(h_BLD, x))
        return output

    def last(self, h_BLD: Tensor, x: Tensor) -> Tensor:
        """The features after the last step that is no padding, [B, D]."""
        if not isinstance(self.input, Tokens) or self.input.pad is None:
            return h_BLD[:, -1]
        last_B = self.input.valid(x).sum(1).clamp_min(1) - 1
        return h_BLD.gather(1, last_B.view(-1, 1, 1).expand(-1, 1, h_BLD.shape[-1]))[:, 0]

    def embed(self, batch: Batch) -> Tensor:
        x = batch[self.input_name]
        return self.last(self.features(x), x)

    def rollout(self, x_BTF: Tensor, count: int) -> Tensor:
        """The `count` values after those of a series [B, T, F], [B, count, F]: each prediction is read as the next
        value."""
        cache: Cache = {}
        predicted = []
        for _ in range(count):
            x_BTF = self.out(self.features(x_BTF, cache)[:, -1:])
            predicted.append(x_BTF)
        return torch.cat(predicted, 1)

    def evaluate(self, batch: Batch) -> Statistics:
        statistics = super().evaluate(batch)
        if isinstance(self.target, NextValue):
            x_BTF, ahead = batch[self.input_name], self.target.ahead
            parts = [
                self.target.statistics_ahead(self.rollout(x_BTF[:, :origin], ahead), batch, origin)
                for origin in self.target.origins
            ]
            statistics |= {name: sum(part[name] for part in parts) for name in parts[0]}
        return statistics

    def next_logits(self, tokens: Tensor, cache: Cache | None) -> Tensor:
        """Logits of the token after these, [B, V]; marks that no text holds are never next."""
        logits_BV: Tensor = self.out(self.features(tokens, cache)[:, -1])
        return without_marks(logits_BV, self._tokens())

    def _tokens(self) -> Tokens:
        """Raises UserError for a model that is no language model."""
        if not self.is_language_model:
            raise UserError(f"dlx sample: {type(self).__name__} makes nothing on these data; dlx predict answers them")
        assert isinstance(self.input, Tokens)
        return self.input

    def sample(
        self,
        count: int,
        *,
        prompt: Tokens | None = None,
        length: int = SAMPLED,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        beam: int | None = None,
        use_cache: bool = True,
    ) -> Iterator[Batch]:
        """Texts that go on after a prompt, a token at a time: each yields what there is so far.

        length: new tokens. temperature: 0 takes the most probable token. top_k, top_p: draw from the k most probable
        alone, or from the fewest whose probability is p. beam: beam search over so many texts instead. use_cache: false
        reads the whole text again for each token, and gives the same.
        """
        try:
            check_sampling(temperature=temperature, top_k=top_k, top_p=top_p, beam=beam, length=length)
        except ValueError as error:
            raise UserError(f"--given {error}") from None
        tokens = self._tokens()
        start = self._start(tokens, count) if prompt is None else prompt.to(self.device).expand(count, -1)  # type: ignore[attr-defined]
        if tokens.end is not None and start[0, -1] == tokens.end:
            start = start[:, :-1]
        if beam is not None:
            end = tokens.vocabulary if tokens.end is None else tokens.end
            pad = tokens.pad if tokens.pad is not None else 0
            best, _ = beam_search(self.next_logits, start, length, beam=beam, end=end, pad=pad)
            return iter([{self.input_name: best}])
        made = generate(
            self.next_logits, start, length, context=self.context, end=tokens.end, pad=tokens.pad,
            temperature=temperature, top_k=top_k, top_p=top_p, use_cache=use_cache,
        )  # fmt: skip
        return ({self.input_name: tokens_BL} for tokens_BL in made)

    @property
    def context(self) -> int | None:
        """How many tokens the model can read; None for any number."""
        return None

    def _start(self, tokens: Tokens, count: int) -> Tensor:
        """What a text begins with where there is no prompt: the mark for it, a new line, or any token."""
        first = 0
        if tokens.begin is not None:
            return torch.full((count, 1), tokens.begin, device=self.device)
        if tokens.tokenizer is not None:
            tokenizer = tokens.load_tokenizer()
            first = tokenizer.first
            try:
                if line := tokenizer.encode("\n"):
                    return torch.tensor([line[:1]], device=self.device).expand(count, 1)
            except UserError:
                pass  # no new line in this alphabet
        return torch.randint(first, tokens.vocabulary, (count, 1)).to(self.device)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        media = super().showcase(batch)
        if self.is_language_model:
            *_, made = self.sample(2)
            tokens = self._tokens()
            media["samples"] = Text("\n----\n".join(tokens.draw(made[self.input_name])))
        if isinstance(self.target, NextValue):
            known_1TF = batch[self.input_name][:1, : -self.target.ahead]
            media["ahead"] = self.target.draw_ahead(self.rollout(known_1TF, self.target.ahead)[0], batch)
        return media
