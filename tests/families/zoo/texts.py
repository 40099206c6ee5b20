"""Texts: a stream of letters with a rule, sentences with a class, and words to be written backwards."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dlx.data.dataset import Dataset, Source, TensorSource, Windows
from dlx.random import generator
from dlx.tasks.spec import Label, LabeledTokens, Streams, Tokens, Translations
from dlx.tasks.tokenizer import Characters

LETTERS = Characters("abcdefgh", first=3)
PAD, BEGIN, END = range(3)
VOCABULARY = 3 + len(LETTERS.alphabet)


def tokens(length: int) -> Tokens:
    return Tokens(vocabulary=VOCABULARY, length=length, pad=PAD, tokenizer=LETTERS.to_json())


def stream(length: int) -> Tensor:
    """Each letter is followed by the next one of the alphabet, or one time in five by any."""
    rng = generator(0, "stream")
    jump_T, any_T = torch.rand(length, generator=rng) < 0.2, torch.randint(8, (length,), generator=rng)
    letters, letter = [], 0
    for jumps, other in zip(jump_T.tolist(), any_T.tolist(), strict=True):
        letter = other if jumps else (letter + 1) % 8
        letters.append(3 + letter)
    return torch.tensor(letters)


class Stream(Dataset):
    """One stream, which is kept once and read in windows; its end is the test split."""

    spec: Streams = Streams(tokens=tokens(9))

    def splits(self) -> dict[str, Source]:
        text = stream(2000)
        return {"train": Windows(text[:1600], 9, stride=8), "test": Windows(text[1600:], 9, stride=8)}


class Sentences(Dataset):
    """Nine letters of the stream; the class says whether they begin with one of the first four."""

    spec: LabeledTokens = LabeledTokens(tokens=tokens(9), label=Label(classes=("early", "late")))

    def splits(self) -> dict[str, Source]:
        token = stream(9 * 160).view(160, 9)
        return {"train": TensorSource(tokens=token, label=(token[:, 0] >= 7).long())}


class Backwards(Dataset):
    """Words of two to seven letters, and the same backwards: padded, of different lengths."""

    spec: Translations = Translations(source=tokens(7), target=replace(tokens(9), begin=BEGIN, end=END))

    def splits(self) -> dict[str, Source]:
        rng = generator(0, "backwards")
        count = 200
        length = torch.randint(2, 8, (count,), generator=rng)
        source = torch.randint(3, VOCABULARY, (count, 7), generator=rng)
        source[torch.arange(7) >= length.unsqueeze(1)] = PAD
        target = torch.zeros(count, 9, dtype=torch.int64)
        target[:, 0] = BEGIN
        for n, size in enumerate(length.tolist()):
            target[n, 1 : size + 1] = source[n, :size].flip(0)
            target[n, size + 1] = END
        found = TensorSource(source=source, target=target)
        found.lengths = {"source": length, "target": length + 2}
        return {"train": found}
