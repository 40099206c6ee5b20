"""Generation of tokens, one after another: sampling, greedy search, beam search.

What generates is a function of the tokens that a model has not read yet and of a cache: it gives the logits of the next
token. A cache is a dict of tensors whose first dimension is the batch (a recurrent state, keys and values); a model
fills it, and beam search reorders it. Without a cache a model reads all of the tokens again at each step.

Shapes: B batch, L tokens, V vocabulary, K beams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlx.config import checks

if TYPE_CHECKING:
    from dlx.tasks.spec import Tokens

Cache = dict[str, Tensor]
Next = Callable[[Tensor, Cache | None], Tensor]
"""(tokens int64 [B, L], cache) -> logits of the token after them, [B, V]. With a cache the tokens are the new ones."""


def check_sampling(
    *, temperature: float, top_k: int | None, top_p: float | None, beam: int | None = None, length: int | None = None
) -> None:
    """Raises ValueError naming the argument that is out of range."""
    checks.at_least(0, temperature=temperature)
    checks.at_least(1, top_k=top_k, beam=beam, length=length)
    checks.between("(0, 1]", top_p=top_p)


def without_marks(logits_BV: Tensor, tokens: Tokens) -> Tensor:
    """Logits with -inf at the marks that are never next: padding, begin, mask."""
    never = [mark for mark in (tokens.pad, tokens.begin, tokens.mask) if mark is not None]
    return logits_BV.index_fill(-1, torch.tensor(never, dtype=torch.int64, device=logits_BV.device), -torch.inf)


def filtered(logits_BV: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Logits with -inf at all but the `top_k` greatest, and at all but the fewest whose probabilities sum to `top_p`
    or more (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751). The most probable token always stays."""
    if top_k is not None and top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if top_p is not None and top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(descending=True)
        before_BV = sorted_BV.softmax(-1).cumsum(-1).roll(1, -1)
        before_BV[:, 0] = 0
        dropped_BV = torch.zeros_like(before_BV, dtype=torch.bool).scatter(-1, order_BV, before_BV >= top_p)
        logits_BV = logits_BV.masked_fill(dropped_BV, -torch.inf)
    return logits_BV


def choose(logits_BV: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """A token for each row, int64 [B]: drawn from softmax(logits / temperature), or at temperature 0 the greatest."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    logits_BV = filtered(logits_BV.float() / temperature, top_k, top_p)
    return torch.multinomial(logits_BV.softmax(-1), 1)[:, 0]


def generate(
    next_logits: Next,
    tokens_BL: Tensor,
    length: int,
    *,
    context: int | None = None,
    end: int | None = None,
    pad: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Yields the tokens after each of `length` steps, int64 [B, L + n]; ends early where all rows have their `end`,
    after which a row is filled with `pad`.

    context: how many tokens the model can read. Where they are full, the older half is forgotten and the rest read
    anew, with a cache and without one, so that both give the same tokens.
    """
    done_B = torch.zeros(len(tokens_BL), dtype=torch.bool, device=tokens_BL.device)
    cache: Cache | None = {} if use_cache else None
    start = max(0, tokens_BL.shape[1] - context) if context else 0
    unread_BL = tokens_BL[:, start:]
    for _ in range(length):
        chosen_B = choose(next_logits(unread_BL, cache), temperature, top_k, top_p)
        if end is not None:
            chosen_B = chosen_B.masked_fill(done_B, end if pad is None else pad)
            done_B = done_B | (chosen_B == end)
        tokens_BL = torch.cat([tokens_BL, chosen_B.unsqueeze(1)], 1)
        yield tokens_BL
        if end is not None and bool(done_B.all()):
            return
        if context and tokens_BL.shape[1] - start > context:
            start = tokens_BL.shape[1] - max(1, context // 2)
            cache = None if cache is None else {}
        unread_BL = tokens_BL[:, start:] if not cache else tokens_BL[:, -1:]


def beam_search(
    next_logits: Next,
    start_B1: Tensor,
    length: int,
    *,
    beam: int,
    end: int,
    pad: int,
    alpha: float = 0.6,
    cache: Cache | None = None,
) -> tuple[Tensor, Tensor]:
    """The best of `beam` hypotheses, int64 [B, up to L + length], and its score [B].

    The score is log p / ((5 + n) / 6)^alpha of its n new tokens, `end` included (Wu et al. 2016, arXiv:1609.08144,
    equation 14). cache: what the model knows before the first token (such as an encoder's output), a row for each of B.
    One beam is greedy search.
    """
    B, K = len(start_B1), beam
    tokens_NL = start_B1.repeat_interleave(K, 0)  # N = B K
    cache = {name: value.repeat_interleave(K, 0) for name, value in (cache or {}).items()}
    total_BK = start_B1.new_zeros((B, K), dtype=torch.float32)
    total_BK[:, 1:] = -torch.inf  # at first all beams of a row are the same
    done_BK = torch.zeros_like(total_BK, dtype=torch.bool)
    count_BK = torch.zeros_like(total_BK)
    unread_NL = tokens_NL
    rows_B1 = torch.arange(B, device=start_B1.device).unsqueeze(1) * K
    for _ in range(length):
        log_p_BKV = next_logits(unread_NL, cache).float().log_softmax(-1).view(B, K, -1)
        V = log_p_BKV.shape[-1]
        log_p_BKV = log_p_BKV.masked_fill(done_BK.unsqueeze(-1), -torch.inf)
        log_p_BKV[..., pad] = torch.where(done_BK, 0.0, -torch.inf)  # a hypothesis that ended stays as it is
        grown_BKV = total_BK.unsqueeze(-1) + log_p_BKV
        counts_BK1 = (count_BK + (~done_BK).float()).unsqueeze(-1)
        ranked_BN = (grown_BKV / length_penalty(counts_BK1, alpha)).flatten(1)
        best_BK = ranked_BN.topk(K).indices
        from_BK, chosen_BK = best_BK // V, best_BK % V
        total_BK = grown_BKV.flatten(1).gather(1, best_BK)
        was_done_BK = done_BK.gather(1, from_BK)
        count_BK = count_BK.gather(1, from_BK) + (~was_done_BK).float()
        done_BK = was_done_BK | (chosen_BK == end)
        if K > 1:  # of one beam none changes its row
            rows_N = (rows_B1 + from_BK).flatten()
            tokens_NL = tokens_NL[rows_N]
            for name, value in cache.items():
                cache[name] = value[rows_N]
        tokens_NL = torch.cat([tokens_NL, chosen_BK.view(-1, 1)], 1)
        unread_NL = tokens_NL[:, -1:]
        if bool(done_BK.all()):
            break
    score_BK = total_BK / length_penalty(count_BK, alpha)
    best_B1 = score_BK.argmax(1, keepdim=True)
    return tokens_NL[(rows_B1 + best_B1)[:, 0]], score_BK.gather(1, best_B1)[:, 0]


def length_penalty(count: Tensor, alpha: float) -> Tensor:
    """((5 + n) / 6)^alpha."""
    return ((5 + count) / 6) ** alpha
