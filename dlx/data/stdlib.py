"""Source of the running interpreter's own standard library: texts that are there without a download."""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dlx.config.errors import UserError
from dlx.data.text import MARKED
from dlx.data.tokenizing import make_tokenizer
from dlx.tasks.tokenizer import Characters

if TYPE_CHECKING:
    from dlx.tasks.tokenizer import Tokenizer

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""A new line and printable ASCII, whatever the interpreter's version."""
LEFT_OUT = {"antigravity", "ensurepip", "encodings", "idlelib", "lib2to3", "pydoc_data", "test", "this", "turtledemo"}
"""Modules that are tests, tables, or programs of their own."""
MODULES = (
    "argparse", "asyncio", "email", "http", "logging", "multiprocessing", "tarfile", "typing", "unittest", "xml",
)  # fmt: skip
"""Large ones of different matters, which every version has."""

LEARNED_FROM = 2_000_000


def plain(text: str) -> str:
    """The text in the fixed alphabet: tabs as spaces, other characters left out."""
    text = text.expandtabs(4)
    if text.isascii() and text.isprintable():
        return text
    kept = set(ALPHABET)
    return "".join(letter for letter in text if letter in kept)


@cache
def modules() -> dict[str, tuple[Path, ...]]:
    """The public modules that are written in Python, by name, sorted, with the files of each.

    Raises UserError where the interpreter comes without its source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in LEFT_OUT:
            continue
        package = root / name
        files = sorted(package.rglob("*.py")) if package.is_dir() else [root / f"{name}.py"]
        kept = [path for path in files if path.is_file() and not {"test", "tests"} & set(path.relative_to(root).parts)]
        if kept:
            found[name] = tuple(kept)
    if not found:
        raise UserError(f"dataset: the source of the standard library is not in {root}")
    return found


@cache
def source(module: str) -> str:
    """The source of a module's files, one after the other, in the fixed alphabet."""
    return "\n".join(plain(path.read_text(encoding="utf-8", errors="ignore")) for path in modules()[module])


def marked_tokenizer(tokens: str, vocabulary: int, root: Path) -> Tokenizer:
    """The tokenizer of `stdlib_modules` and `sentence_pairs`: one for both, so that a model of the one reads the other;
    the marks padding, [CLS], [SEP] and [MASK] come first. Words and subwords are learned from LEARNED_FROM characters
    of other modules, of which neither dataset has a line to test on."""
    if tokens == "characters":
        return Characters(ALPHABET, len(MARKED))
    others = "\n".join(source(name) for name in modules() if name not in MODULES)
    return make_tokenizer(tokens, [others[:LEARNED_FROM]], vocabulary, len(MARKED), root=root)
