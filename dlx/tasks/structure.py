"""How many free numbers a table of p(x) has, by what it lets each dimension depend on.

Of n binary pixels: n where they are independent, 2n - 1 where each depends on one other (a Markov chain), 2^n - 1 where
each depends on all. A table of K levels has K - 1 free numbers: the last is what is missing to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlx.tasks.density import Autoregressive


def independent(dimensions: int, levels: int = 2) -> int:
    """n (K - 1)."""
    return dimensions * (levels - 1)


def markov(dimensions: int, levels: int = 2, *, first: int = 1) -> int:
    """first (K - 1) + (n - first) K (K - 1): each given one other, but for those that come first and have none."""
    return first * (levels - 1) + (dimensions - first) * levels * (levels - 1)


def full(dimensions: int, levels: int = 2) -> int:
    """K^n - 1; of an RGB pixel of bytes, full(3, 256), 16,777,215."""
    return int(levels**dimensions) - 1


def rows(system: Autoregressive, name: str, numbers: int) -> list[dict[str, str]]:
    """What this system has, and what a table of p(x) of its images would have, as rows of a table."""
    D, K = system.dimensions, system.levels
    channels = system.input.channels
    found = [(name, numbers), ("independent", independent(D, K)), ("Markov chain", markov(D, K, first=channels))]
    if channels > 1:
        found.append(("the channels of one pixel, full", full(channels, K)))
    shown = [{"p(x)": kind, "free numbers": f"{count:,}"} for kind, count in found]
    return [*shown, {"p(x)": "full", "free numbers": full_text(D, K)}]


def full_text(dimensions: int, levels: int = 2) -> str:
    """`full` written out, or as a power where it is long."""
    exact = levels ** min(dimensions, 64) < 10**12
    return f"{full(dimensions, levels):,}" if exact else f"{levels}^{dimensions} - 1"
