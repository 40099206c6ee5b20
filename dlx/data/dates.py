"""Dates in many forms and the same in ISO 8601: a translation whose answer is known, drawn from a seed."""

from __future__ import annotations

import calendar
import string
from datetime import date, timedelta
from functools import cache
from typing import TYPE_CHECKING

import torch

from dlx.config import checks
from dlx.data.pairs import FIRST, Pair, TextPairs
from dlx.random import generator
from dlx.tasks.tokenizer import Characters

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlx.tasks.tokenizer import Tokenizer

MONTHS, SHORT_MONTHS = (tuple(names)[1:] for names in (calendar.month_name, calendar.month_abbr))
DAYS = tuple(calendar.day_name)
ALPHABET = "".join(sorted(f" ,-./{string.digits}{string.ascii_letters}"))
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)


def ordinal(day: int) -> str:
    """1st, 2nd, 3rd, 4th, ..., 11th, 12th, 13th, ..."""
    suffix = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


FORMS: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.day} {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{d.day} {SHORT_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{SHORT_MONTHS[d.month - 1]}. {d.day} {d.year}",
    lambda d: f"{DAYS[d.weekday()]}, {d.day} {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{DAYS[d.weekday()][:3]} {SHORT_MONTHS[d.month - 1]} {d.day} {d.year}",
    lambda d: f"the {ordinal(d.day)} of {MONTHS[d.month - 1]}, {d.year}",
    lambda d: f"{MONTHS[d.month - 1]} {ordinal(d.day)}, {d.year}",
    lambda d: f"{d.day:02}-{SHORT_MONTHS[d.month - 1].upper()}-{d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d: f"{d.year}/{d.month:02}/{d.day:02}",
)
"""Each can be read in one way alone: of what is digits, a dot is day first, a slash year first."""


class Dates(TextPairs):
    """Dates from 1900 to 2099, each once, in a form that is drawn for it, such as "17 March 2004", to "2004-03-17".

    No date that is validated or tested on is trained on, in whatever form. samples: dates in all. data_seed: draws
    them, whatever the run's seed.
    """

    def __init__(self, *, samples: int = 12_000, data_seed: int = 0) -> None:
        checks.at_least(10, samples=samples)
        self.days = (LAST_DAY - FIRST_DAY).days + 1
        if samples > self.days:
            raise ValueError(f"samples must be at most {self.days}, the days from 1900 to 2099, got {samples}")
        self.samples, self.data_seed = samples, data_seed

    def pairs(self) -> dict[str, list[Pair]]:
        rng = generator(self.data_seed, "dates")
        days = torch.randperm(self.days, generator=rng)[: self.samples].tolist()
        forms = torch.randint(len(FORMS), (self.samples,), generator=rng).tolist()
        found = []
        for day, form in zip(days, forms, strict=True):
            when = FIRST_DAY + timedelta(days=day)
            found.append((FORMS[form](when), when.isoformat()))
        return {"train": found}

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        return (_characters(),) * 2

    def longest(self) -> tuple[int, int]:
        """Those of all dates, whichever were drawn."""
        return len("Wednesday, 30 September 2099") + 1, len("2099-12-31") + 2


@cache
def _characters() -> Characters:
    return Characters(ALPHABET, FIRST)
