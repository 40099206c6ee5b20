"""Seq2seq (Sutskever, Vinyals, Le 2014, arXiv:1409.3215; Cho et al. 2014, arXiv:1406.1078): a recurrent encoder reads a
text, a recurrent decoder writes another; with attention (Bahdanau et al. 2014, arXiv:1409.0473; Luong et al. 2015,
arXiv:1508.04025) each step of the decoder looks back at all of the source.

Shapes: B batch, S source tokens, L target tokens, E embed_dim, H hidden, N layers, D features of an encoder state (H,
or 2H of both directions), A width of a score, F features of the output layer, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.generation import Cache
from dlx.tasks.spec import Tokens
from dlx.tasks.translation import AnyTexts, Translation, Translator

Cell = Literal["gru", "lstm"]
Direction = Literal["forward", "reversed", "bidirectional"]
Score = Literal["dot", "general", "concat"]


def make_rnn(cell: Cell, inputs: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> nn.GRU | nn.LSTM:
    """torch's fused layers. An LSTM adds two biases at each gate, of which one is fixed at 0 and counts for nothing."""
    kind = nn.GRU if cell == "gru" else nn.LSTM
    rnn = kind(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
    if cell == "lstm":
        for name, parameter in rnn.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.zeros_(parameter).requires_grad_(False)
    return rnn


def last_cell(rnn: nn.LSTM, x_BSE: Tensor, h_BSH: Tensor, lengths_B: Tensor) -> Tensor:
    """The cell c of a one-layer LSTM after each text's last token, [B, H]; torch gives it after the padding alone.

    c_t = f_t c_{t-1} + i_t g_t has the solution sum_t (prod_{s > t} f_s) i_t g_t; the gates come from x and h.
    """
    before_BSH = F.pad(h_BSH[:, :-1], (0, 0, 1, 0))
    weights = dict(rnn.named_parameters())
    gates = F.linear(x_BSE, weights["weight_ih_l0"], weights["bias_ih_l0"])
    gates = gates + F.linear(before_BSH, weights["weight_hh_l0"])
    i_BSH, f_BSH, g_BSH, _ = gates.chunk(4, -1)
    valid_BS1 = (torch.arange(x_BSE.shape[1], device=x_BSE.device) < lengths_B.unsqueeze(1)).unsqueeze(-1)
    log_f_BSH = F.logsigmoid(f_BSH).masked_fill(~valid_BS1, 0)
    after_BSH = log_f_BSH.flip(1).cumsum(1).flip(1) - log_f_BSH
    return (after_BSH.exp() * i_BSH.sigmoid() * g_BSH.tanh() * valid_BS1).sum(1)


class Encoder(nn.Module):
    """Layers of one or both directions. Padding comes after a text's tokens in either, and no state reads it."""

    def __init__(self, cell: Cell, direction: Direction, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        ways = {"forward": (False,), "reversed": (True,), "bidirectional": (False, True)}[direction]
        self.is_backward = ways
        self.features = hidden * len(ways)
        sizes = [inputs, *[self.features] * (layers - 1)]
        self.layers = nn.ModuleList(nn.ModuleList(make_rnn(cell, size, hidden) for _ in ways) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BSE: Tensor, lengths_B: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor | None]]]:
        """The top layer's states [B, S, D], and of each layer h [B, D] after the token that each direction reads last,
        with c [B, H] of LSTMs of one direction, else None."""
        steps_S = torch.arange(x_BSE.shape[1], device=x_BSE.device)
        lengths_B1 = lengths_B.unsqueeze(1)
        backward_BS1 = torch.where(steps_S < lengths_B1, lengths_B1 - 1 - steps_S, steps_S).unsqueeze(-1)
        last_B11 = (lengths_B - 1).view(-1, 1, 1)
        found: list[tuple[Tensor, Tensor | None]] = []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleList)
            x_BSE = self.dropout(x_BSE) if number else x_BSE
            states, last, cell_BH = [], [], None
            for rnn, is_backward in zip(layer, self.is_backward, strict=True):
                read = x_BSE.gather(1, backward_BS1.expand_as(x_BSE)) if is_backward else x_BSE
                h_BSH, _ = rnn(read)
                last.append(h_BSH.gather(1, last_B11.expand(-1, 1, h_BSH.shape[-1]))[:, 0])
                if isinstance(rnn, nn.LSTM) and len(layer) == 1:
                    cell_BH = last_cell(rnn, read, h_BSH, lengths_B)
                states.append(h_BSH.gather(1, backward_BS1.expand_as(h_BSH)) if is_backward else h_BSH)
            found.append((torch.cat(last, -1), cell_BH))
            x_BSE = torch.cat(states, -1)
        return x_BSE, found


class Attention(nn.Module):
    """Scores each encoder state against a decoder state, and gives their mean under the softmax of the scores.

    dot: q.k; general: q.Wk; concat: v.tanh(W[q; k]), which is Bahdanau's v.tanh(W q + U k) as well.
    """

    def __init__(self, score: Score, hidden: int, features: int) -> None:
        super().__init__()
        if score == "dot" and hidden != features:
            raise ValueError(
                f"score dot needs states of one width, got {hidden} of the decoder and {features} of the encoder"
            )
        self.query = nn.Linear(hidden, hidden) if score == "concat" else nn.Identity()
        self.key = nn.Linear(features, hidden, bias=False) if score != "dot" else nn.Identity()
        self.v = nn.Parameter(torch.zeros(hidden)) if score == "concat" else None
        if self.v is not None:
            nn.init.uniform_(self.v, -(hidden**-0.5), hidden**-0.5)

    def forward(self, query_BLH: Tensor, memory: Cache) -> tuple[Tensor, Tensor]:
        """The mean state [B, L, D] and the weights [B, L, S]; memory has states, keys, valid."""
        query_BLA, key_BSA = self.query(query_BLH), memory["keys"]
        if self.v is None:
            score_BLS = query_BLA @ key_BSA.transpose(1, 2)
        else:
            score_BLS = (query_BLA.unsqueeze(2) + key_BSA.unsqueeze(1)).tanh() @ self.v
        score_BLS = score_BLS.masked_fill(~memory["valid"].unsqueeze(1), -torch.inf)  # before the softmax
        weights_BLS = score_BLS.softmax(-1)
        return weights_BLS @ memory["states"], weights_BLS


class Seq2Seq(Translator):
    """cell: of the encoder and the decoder. encoder: reads the source forward, reversed (Sutskever et al.) or in both
    directions (Bahdanau et al.). embed_dim: of source and target tokens. hidden: units of a layer and direction.

    attention: None, the decoder knows the encoder's last state alone; `bahdanau`, an additive score with the
    decoder's last state, whose mean goes into the next one, and a maxout layer of hidden / 2 before the output;
    `luong`, the score with the new state, and tanh(W[mean; state]) before the output. score: Luong's, `dot`,
    `general` or `concat`. input_feeding: of Luong's, the vector before the output goes into the next step. dropout:
    of embeddings, between layers and before the output. teacher_forcing: in training, the probability with which a
    step is given the true token before it, and not the decoder's own (Bengio et al. 2015, arXiv:1506.03099). init:
    None, torch's; `sutskever`, all uniform in +-0.08; `bahdanau`, recurrent weights orthogonal, the score's normal
    with std 0.001 and v = 0, all others with std 0.01, biases 0.

    The gated units are torch's: its GRU multiplies the reset gate after the matrix, Cho et al. before it. Where the
    data are labelled texts, the encoder's last states classify them, and there is no decoder.
    """

    def __init__(
        self,
        *,
        spec: AnyTexts,
        cell: Cell = "gru",
        encoder: Direction = "bidirectional",
        embed_dim: int = 64,
        hidden: int = 128,
        layers: int = 1,
        attention: Literal["bahdanau", "luong"] | None = "bahdanau",
        score: Score = "general",
        input_feeding: bool = True,
        dropout: float = 0.0,
        teacher_forcing: float = 1.0,
        init: Literal["sutskever", "bahdanau"] | None = None,
        label_smoothing: float = 0.0,
        beam: int = 1,
        bleu: bool = False,
        loss: str | None = None,
    ) -> None:
        checks.one_of(get_args(Cell), cell=cell)
        checks.one_of(get_args(Direction), encoder=encoder)
        checks.one_of(("bahdanau", "luong"), attention=attention)
        checks.one_of(get_args(Score), score=score)
        checks.one_of(("sutskever", "bahdanau"), init=init)
        checks.at_least(1, embed_dim=embed_dim, layers=layers)
        checks.at_least(2, hidden=hidden)
        checks.between("[0, 1)", dropout=dropout)
        checks.between("[0, 1]", teacher_forcing=teacher_forcing)
        super().__init__(spec=spec, label_smoothing=label_smoothing, beam=beam, bleu=bleu, loss=loss)
        assert isinstance(self.input, Tokens)
        self.kind, self.teacher_forcing = attention, teacher_forcing
        self.feeds = attention == "luong" and input_feeding
        self.dropout = nn.Dropout(dropout)
        self.read = nn.Embedding(self.input.vocabulary, embed_dim)
        self.encoder = Encoder(cell, encoder, embed_dim, hidden, layers, dropout)
        features, top = self.encoder.features, hidden
        if not isinstance(self.target, Translation):
            top = features
        else:
            self.write = nn.Embedding(self.target.tokens.vocabulary, embed_dim)
            more = features if attention == "bahdanau" else hidden if self.feeds else 0
            self.decoder = make_rnn(cell, embed_dim + more, hidden, layers, dropout)
            # With attention the decoder begins with the direction that ends at the first token (Bahdanau et al.,
            # appendix A.2.2); without it, it knows nothing but what both end with.
            self.begins_with = features if attention is None else hidden
            number = layers if encoder == "bidirectional" else 0
            self.bridges = nn.ModuleList(nn.Linear(self.begins_with, hidden) for _ in range(number))
        if isinstance(self.target, Translation) and attention is not None:
            self.align = Attention("concat" if attention == "bahdanau" else score, hidden, features)
            if attention == "bahdanau":
                top = hidden // 2
                self.combine = nn.Linear(hidden + embed_dim + features, 2 * top)
            else:
                self.combine = nn.Linear(features + hidden, hidden, bias=False)
        self.out = self.make_head(top)
        self._initialize(init)

    def _initialize(self, init: str | None) -> None:
        for name, parameter in self.named_parameters():
            if init is None or not parameter.requires_grad:
                continue
            if init == "sutskever":
                nn.init.uniform_(parameter, -0.08, 0.08)
            elif parameter.ndim == 1:
                nn.init.zeros_(parameter)
            elif "weight_hh" in name:
                for gate in parameter.data.chunk(parameter.shape[0] // parameter.shape[1]):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.normal_(parameter, std=0.001 if name.startswith("align") else 0.01)

    def _lengths(self, x_BS: Tensor) -> Tensor:
        assert isinstance(self.input, Tokens)
        return self.input.valid(x_BS).sum(1).clamp_min(1)

    # As a classifier.

    def features(self, x_BS: Tensor) -> Tensor:
        """The encoder's states, [B, S, D]."""
        states_BSD, _ = self.encoder(self.dropout(self.read(x_BS)), self._lengths(x_BS))
        return states_BSD

    def _summary(self, x_BS: Tensor) -> Tensor:
        """The top layer's states after the token that each direction reads last, [B, D]."""
        _, last = self.encoder(self.dropout(self.read(x_BS)), self._lengths(x_BS))
        summary_BD: Tensor = last[-1][0]
        return summary_BD

    def embed(self, batch: dict[str, Tensor]) -> Tensor:
        return self._summary(batch[self.input_name])

    def forward(self, x_BS: Tensor) -> Tensor:
        """Class logits of texts, [B, K]."""
        return self.out(self.dropout(self._summary(x_BS)))

    # As a translator.

    def encode(self, source_BS: Tensor) -> Cache:
        """hidden [B, N, H], of LSTMs cell [B, N, H]; with attention states [B, S, D], keys [B, S, A], valid [B, S]."""
        lengths_B = self._lengths(source_BS)
        states_BSD, last = self.encoder(self.dropout(self.read(source_BS)), lengths_B)
        hidden = [h_BD[:, -self.begins_with :] for h_BD, _ in last]
        if self.bridges:
            hidden = [bridge(h_BF).tanh() for bridge, h_BF in zip(self.bridges, hidden, strict=True)]
        memory: Cache = {"hidden": torch.stack(hidden, 1)}
        if isinstance(self.decoder, nn.LSTM):
            cells = [torch.zeros_like(hidden[0]) if c_BH is None else c_BH for _, c_BH in last]
            memory["cell"] = torch.stack(cells, 1)
        if self.kind is not None:
            steps_S = torch.arange(source_BS.shape[1], device=source_BS.device)
            valid_BS = steps_S < lengths_B.unsqueeze(1)
            memory |= {"states": states_BSD, "keys": self.align.key(states_BSD), "valid": valid_BS}
        if self.feeds:
            memory["fed"] = torch.zeros_like(hidden[-1])
        return memory

    def decode(self, target_BL: Tensor, memory: Cache, *, cached: bool = False) -> Tensor:
        """Logits [B, L, V] of the token after each of the target's."""
        if self.training and self.teacher_forcing < 1 and not cached:
            return self._decode_own(target_BL, dict(memory))
        top_BLF, _, after = self._steps(target_BL, memory)
        if cached:
            memory |= after
        return self.out(self.dropout(top_BLF))

    def _decode_own(self, target_BL: Tensor, memory: Cache) -> Tensor:
        """As `decode`, but some of the tokens given are those that the decoder found most probable."""
        is_true_BL = torch.rand(target_BL.shape, device=target_BL.device) < self.teacher_forcing
        token_B1, logits = target_BL[:, :1], []
        for n in range(target_BL.shape[1]):
            logits.append(self.decode(token_B1, memory, cached=True))
            true_B1, after = target_BL[:, n + 1 : n + 2], is_true_BL[:, n + 1 : n + 2]
            token_B1 = torch.where(after, true_B1, logits[-1].argmax(-1)[:, : true_B1.shape[1]])
        return torch.cat(logits, 1)

    def attention(self, target_BL: Tensor, memory: Cache) -> Tensor | None:
        """The weights of each step, [B, L, S]."""
        return self._steps(target_BL, memory)[1]

    def _steps(self, target_BL: Tensor, memory: Cache) -> tuple[Tensor, Tensor | None, Cache]:
        """What the output reads after each step, the weights [B, L, S], and the decoder's state after the last."""
        x_BLE = self.dropout(self.write(target_BL))
        state: Tensor | tuple[Tensor, Tensor] = memory["hidden"].transpose(0, 1).contiguous()
        if "cell" in memory:
            state = (state, memory["cell"].transpose(0, 1).contiguous())  # type: ignore[assignment]
        weights_BLS: Tensor | None = None
        fed_B1H = memory["fed"].unsqueeze(1) if self.feeds else None
        if self.kind == "bahdanau" or self.feeds:
            tops, weights = [], []
            for x_B1E in x_BLE.split(1, 1):
                if fed_B1H is not None:
                    h_B1H, state = self.decoder(torch.cat([x_B1E, fed_B1H], -1), state)
                    mean_B1D, found = self.align(h_B1H, memory)
                    fed_B1H = self.combine(torch.cat([mean_B1D, h_B1H], -1)).tanh()
                    tops.append(fed_B1H)
                else:
                    before_NBH = state[0] if isinstance(state, tuple) else state
                    mean_B1D, found = self.align(before_NBH[-1].unsqueeze(1), memory)
                    h_B1H, state = self.decoder(torch.cat([x_B1E, mean_B1D], -1), state)
                    tops.append(torch.cat([h_B1H, x_B1E, mean_B1D], -1))
                weights.append(found)
            top_BLF, weights_BLS = torch.cat(tops, 1), torch.cat(weights, 1)
            if self.kind == "bahdanau":
                top_BLF = self.combine(top_BLF).unflatten(-1, (-1, 2)).amax(-1)  # maxout of pairs
        else:
            top_BLF, state = self.decoder(x_BLE, state)
            if self.kind == "luong":
                mean_BLD, weights_BLS = self.align(top_BLF, memory)
                top_BLF = self.combine(torch.cat([mean_BLD, top_BLF], -1)).tanh()
        hidden_NBH, cell_NBH = state if isinstance(state, tuple) else (state, None)
        after: Cache = {"hidden": hidden_NBH.transpose(0, 1)}
        if cell_NBH is not None:
            after["cell"] = cell_NBH.transpose(0, 1)
        if fed_B1H is not None:
            after["fed"] = fed_B1H[:, 0]
        return top_BLF, weights_BLS, after
