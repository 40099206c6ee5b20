"""Sequence to sequence: a recurrent encoder and decoder on batches of similar length; evaluation generates."""

from __future__ import annotations

from torch import Tensor, nn

from dlx.tasks.generation import Cache
from dlx.tasks.spec import Translations
from dlx.tasks.translation import Translator


class Seq2Seq(Translator):
    """attends: shows a map of what each step read (of this toy: of all tokens the same)."""

    def __init__(self, *, spec: Translations, width: int = 24, attends: bool = False, loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        self.attends = attends
        self.read = nn.Embedding(spec.source.vocabulary, width)
        self.write = nn.Embedding(spec.target.vocabulary, width)
        self.encoder, self.decoder = nn.GRU(width, width, batch_first=True), nn.GRU(width, width, batch_first=True)
        self.out = self.make_head(width)

    def encode(self, source: Tensor) -> Cache:
        """state: after each text's last token, [B, 1, W]. valid: where a token is no padding, [B, S]."""
        states, _ = self.encoder(self.read(source))
        valid = self.spec.source.valid(source)
        last = valid.sum(1).clamp_min(1) - 1
        return {"state": states.gather(1, last.view(-1, 1, 1).expand(-1, 1, states.shape[-1])), "valid": valid}

    def decode(self, target: Tensor, memory: Cache, *, cached: bool = False) -> Tensor:
        hidden, state = self.decoder(self.write(target), memory["state"].transpose(0, 1).contiguous())
        if cached:
            memory["state"] = state.transpose(0, 1)
        return self.out(hidden)

    def attention(self, target: Tensor, memory: Cache) -> Tensor | None:
        if not self.attends:
            return None
        share = memory["valid"] / memory["valid"].sum(1, keepdim=True)
        return share.unsqueeze(1).expand(-1, target.shape[1], -1)
