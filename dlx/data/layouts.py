"""What names of files mean: the split that a folder stands for, and annotations that have the name of their image."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from dlx.data.annotations import Faults
from dlx.data.archive import Files
from dlx.data.image_folder import split_of

K = TypeVar("K", bound=Hashable)

CLASSES = "classes.txt"  # names of classes, one a line


Pair = tuple[str, str, str | None]
"""Split, image and the file beside it; None where there is none."""


def partners(files: Files, others: Iterable[str], images: str, labels: str, faults: Faults) -> list[Pair]:
    """The images in folders of the name `images`, each with the one of the others that has the same path but for the
    folder's name (`labels`) and its ending. Faults are others without an image, and several files of one name.

    Raises ValueError where there is no such folder, or only some are of a split.
    """
    image_of = by_key(((_inside(name, images), name) for name in files.images), faults)
    other_of = by_key(((_inside(name, labels), name) for name in others), faults)
    if not image_of:
        raise ValueError(f"holds no images in a folder {images}")
    if not other_of:
        raise ValueError(f"holds nothing that can be read in a folder {labels}")
    split_at = splits_of({name: [*key[0], *key[1][:-1]] for key, name in image_of.items()})
    for key, name in other_of.items():
        if key not in image_of:
            faults.add(name, images, "there is no image of this name", of="image")
    return [(split_at[name], name, other_of.get(key)) for key, name in image_of.items()]


def by_key(items: Iterable[tuple[K | None, str]], faults: Faults) -> dict[K, str]:
    """The files by their keys, in the order of their names; a second one of a key is a fault, one without is not."""
    found: dict[K, str] = {}
    for key, name in sorted(items, key=lambda item: item[1]):
        if key is None:
            continue
        if key in found:
            faults.add(name, "name", f"{found[key]} has the same but for the ending", of="image")
        else:
            found[key] = name
    return found


def _inside(name: str, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The folders around the last one of that name, and the path in it without an ending; None outside of it."""
    *around, last = PurePosixPath(name).parts
    if folder not in around:
        return None
    at = len(around) - 1 - around[::-1].index(folder)
    return tuple(around[:at]), (*around[at + 1 :], PurePosixPath(last).stem)


def splits_of(folders: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The split of each name by the first of its folders (or words) that means one; train where none does for any.

    Raises ValueError where some are of a split and others are not, or there is no train.
    """
    found = {name: next(filter(None, map(split_of, parts)), None) for name, parts in folders.items()}
    given = {split for split in found.values() if split}
    if given and (outside := [name for name, split in found.items() if not split]):
        raise ValueError(f"{outside[0]} is of no split, but others are of {', '.join(sorted(given))}")
    if given and "train" not in given:
        raise ValueError(f"holds {', '.join(sorted(given))} but no train")
    return {name: split or "train" for name, split in found.items()}


def check_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Raises ValueError for names of classes that are not distinct, or none."""
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ValueError(f"names must be distinct and at least one, got {list(names)}")
    return None if names is None else tuple(names)


def text_lines(name: str, content: bytes) -> list[str]:
    """The lines that are not empty. Raises ValueError for what is no text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: no text that can be read ({error})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def class_names(texts: Mapping[str, bytes]) -> tuple[str, ...] | None:
    """The lines of a file classes.txt, of several the outermost one's; None without one. Raises ValueError."""
    files = sorted((name for name in texts if PurePosixPath(name).name == CLASSES), key=lambda name: name.count("/"))
    if not files:
        return None
    names = text_lines(files[0], texts[files[0]])
    try:
        return check_names(names)
    except ValueError as error:
        raise ValueError(f"{files[0]}: {error}") from None
