"""Making of tokenizers: characters, bytes, and subwords that the `tokenizers` library trains or has in a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.config.extras import require
from dlx.data.files import data_root, make_folder
from dlx.runs.files import atomic_file
from dlx.tasks.spec import Tokens
from dlx.tasks.tokenizer import Bytes, Characters, Subwords, Words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dlx.tasks.spec import Spec
    from dlx.tasks.tokenizer import Tokenizer

MARKS = {
    "bpe": ("[PAD]", "[BEGIN]", "[END]", "[MASK]"),
    "wordpiece": ("[PAD]", "[CLS]", "[SEP]", "[MASK]"),
}
UNKNOWN = "[UNK]"
BYTES = 256
_FORMAT = 2  # of the kept tokenizers; part of their key


def is_learned(kind: str) -> bool:
    """Whether such a tokenizer counts what its texts hold, so that they must be no test texts. The alphabet of
    characters is that of all texts, so that each can be told."""
    return kind in ("words", *MARKS)


def is_file(kind: str) -> bool:
    """Whether a setting `tokens` names a tokenizer's file rather than a kind."""
    return kind.endswith(".json")


def check_tokens(tokens: str, vocabulary: int, first: int = 0) -> None:
    """Raises ValueError for a setting of a dataset that no tokenizer can be made of."""
    if tokens not in ("characters", "bytes", "words", *MARKS) and not is_file(tokens):
        raise ValueError(
            f"tokens must be characters, bytes, words, bpe, wordpiece or a tokenizer's .json, got {tokens!r}"
        )
    least = {"bpe": BYTES + first, "wordpiece": first + 2, "words": first + 2}.get(tokens, 1)
    if vocabulary < least:
        raise ValueError(f"vocabulary must be at least {least} for tokens={tokens}, got {vocabulary}")


def make_tokenizer(
    kind: str,
    texts: Sequence[str],
    vocabulary: int = 1024,
    first: int = 0,
    *,
    lower: bool = False,
    root: Path | str | None = None,
) -> Tokenizer:
    """The tokenizer of some texts.

    kind: characters (sorted, of these texts), bytes, words (the most frequent, with spaces between), bpe (byte-level,
    Radford et al. 2019: it can tell every text), wordpiece (Schuster & Nakajima 2012, as BERT uses it, lower-cased), or
    the path of a `tokenizer.json` of the tokenizers library. vocabulary: the most tokens that words and subwords may
    have, marks included. first: how many marks come before the text's tokens. lower: it reads all texts in lower case,
    these too. root: where trained tokenizers are kept, by the hash of texts and settings.

    Raises UserError where the library is missing or a file is not its.
    """
    texts = [text.lower() for text in texts] if lower else texts
    if kind == "characters":
        return Characters("".join(sorted(set().union(*texts))), first, lower=lower)
    if kind == "bytes":
        return Bytes(first, lower=lower)
    if kind == "words":
        counts = Counter(word for text in texts for word in text.split())
        by_count = sorted(counts, key=lambda word: (-counts[word], word))
        return Words(by_count[: vocabulary - first - 1], first, lower=lower)
    if is_file(kind):
        return _read(Path(kind).expanduser(), first, lower)
    require(f"dataset.tokens={kind}", "nlp", "tokenizers")
    digest = hashlib.sha256(f"{_FORMAT} {kind} {vocabulary} {first}".encode())
    for text in texts:
        digest.update(b"\0" + text.encode(errors="surrogatepass"))
    path = data_root(root) / "tokenizers" / f"{digest.hexdigest()[:32]}.json"
    if path.is_file():
        return Subwords(path.read_text(encoding="utf-8"), first, lower=lower)
    content = train(kind, texts, vocabulary, first)
    make_folder(path.parent)
    with atomic_file(path) as partial:
        partial.write_text(content, encoding="utf-8")
    return Subwords(content, first, lower=lower)


def tokenizer_of(spec: Spec, name: str = "tokens") -> Tokenizer | None:
    """That of an entry of a run's spec, None where it has none."""
    entry = spec.entries.get(name)
    return entry.load_tokenizer() if isinstance(entry, Tokens) and entry.tokenizer is not None else None


def train(kind: str, texts: Sequence[str], vocabulary: int, first: int) -> str:
    """A trained tokenizer of the `tokenizers` library, as its JSON."""
    # A worker that is forked after the library used threads would warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    marks = list(MARKS[kind][:first])
    if kind == "bpe":
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=marks, show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )  # fmt: skip
    else:
        library = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        library.normalizer = normalizers.BertNormalizer(lowercase=True)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece(prefix="##")
        # The library numbers the pieces that go on within a word in the order of a hash table, another one in each
        # process, and breaks ties by their numbers; named before the training they have an order.
        parts = (library.normalizer.normalize_str(text) for text in _pieces(texts))
        inner = {c for part in parts for word, _ in library.pre_tokenizer.pre_tokenize_str(part) for c in word[1:]}
        named = [*marks, UNKNOWN, *(f"##{letter}" for letter in sorted(inner))]
        trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=named, show_progress=False)
    library.train_from_iterator(_pieces(texts), trainer)
    content = json.loads(library.to_str())
    content["added_tokens"] = []  # else a text that holds "[PAD]" would become the mark
    return json.dumps(content, ensure_ascii=False)


def _pieces(texts: Iterable[str]) -> Iterable[str]:
    """Texts in parts of some lines: the library would split a long one as a whole."""
    for text in texts:
        lines = text.splitlines(keepends=True)
        for start in range(0, len(lines), 64):
            yield "".join(lines[start : start + 64])


def _read(path: Path, first: int, lower: bool) -> Tokenizer:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dataset.tokens: {path}: cannot be read ({error})") from None
    try:
        tokenizer = Subwords(content, first, lower=lower)
    except UserError as error:
        raise UserError(f"dataset.tokens: {path}: {error}") from None
    vocabulary = json.loads(content)["model"].get("vocab", {})
    number = vocabulary if isinstance(vocabulary, dict) else {}
    for mark in range(first):
        if number.get(MARKS["bpe"][mark]) != mark and number.get(MARKS["wordpiece"][mark]) != mark:
            names = " ".join(MARKS["wordpiece"][:first])
            raise UserError(f"dataset.tokens: {path}: its first tokens must be the marks {names}")
    return tokenizer
