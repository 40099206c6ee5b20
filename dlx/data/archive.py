"""Files: what a directory or an archive (.zip, .tar) of images and annotations holds, by relative names."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from dlx.config.errors import UserError
from dlx.config.screen import track

SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
}  # fmt: skip
HIDDEN = (".", "__MACOSX")  # what names begin with that are left out
MAX_IMAGE_BYTES = 256 << 20  # of an archive's member
MAX_TEXT_BYTES = 1 << 30  # of a text that is read whole; COCO's annotations have 450 MB
MAX_UNPACKED_BYTES = 200 << 30  # of all of an archive's members together
AT_ONCE_BYTES = 64 << 20  # of encoded images that are decoded together
LISTED = 10  # names that a message lists


def as_text(name: str) -> str:
    """A name that need not be UTF-8 as one that can be written and drawn."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(HIDDEN) for part in name.parts)


@dataclass
class Seen:
    """Other things beside the files of these suffixes: files of other kinds by suffix, and folders without any."""

    read: Collection[str] = frozenset(SUFFIXES)
    suffixes: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def is_read(self, name: PurePosixPath) -> bool:
        """True for a file of these suffixes; the kind of another file is counted."""
        if is_hidden(name):
            return False
        is_read = name.suffix.lower() in self.read
        if name.suffix and not is_read:
            self.suffixes[name.suffix.lower()] += 1
        return is_read

    def notes(self) -> list[str]:
        notes = []
        if self.suffixes:
            each = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.suffixes.items()))
            notes.append(f"files that are not read: {each}")
        if self.empty:
            notes.append(f"folders without images: {', '.join(map(as_text, self.empty[:LISTED]))}")
        return notes


class Files:
    """The files of a directory or archive that are images or texts, by relative names with forward slashes.

    texts: suffixes of the text files that are read. Errors name `dataset.path`.
    """

    def __init__(self, path: Path, *, texts: Collection[str] = ()) -> None:
        self.path, self.text_suffixes = Path(path).expanduser(), frozenset(texts)
        self.seen = Seen(frozenset(SUFFIXES | self.text_suffixes))

    @cached_property
    def _listed(self) -> list[tuple[str, int, int]]:
        return list_directory(self.path, self.seen)

    @cached_property
    def _read(self) -> tuple[list[str], dict[str, bytes]]:
        """All names, sorted, and the content of the texts."""
        texts: dict[str, bytes] = {}
        if self.path.is_dir():
            names = [name for name, *_ in self._listed]
            texts = {n: read_file(self.path / n) for n in names if suffix_of(n) in self.text_suffixes}
            return names, texts
        names = []
        for name, content in read_archive(self.path, lambda name: suffix_of(name) in self.text_suffixes):
            if self.seen.is_read(PurePosixPath(name)):
                names.append(name)
                if suffix_of(name) in self.text_suffixes:
                    texts[name] = content
        return sorted(set(names)), texts

    @property
    def names(self) -> list[str]:
        return self._read[0]

    @property
    def texts(self) -> dict[str, bytes]:
        """The content of all text files."""
        return self._read[1]

    def forget(self) -> None:
        """Frees the texts; they are read again when they are asked for."""
        vars(self).pop("_read", None)

    @property
    def images(self) -> list[str]:
        return [name for name in self.names if suffix_of(name) in SUFFIXES]

    def digest(self, settings: str) -> str:
        """Of the content and the settings: of an archive its bytes, of a directory names, sizes and times of files."""
        if self.path.is_dir():
            content = "\0".join(f"{name}\0{size}\0{time}" for name, size, time in self._listed)
            digest = hashlib.sha256(content.encode(errors="surrogateescape"))  # names need not be UTF-8
        elif self.path.is_file():
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        else:
            raise UserError(f"dataset.path: {self.path}: there is no such directory or archive")
        digest.update(f"\0{settings}".encode())
        return digest.hexdigest()[:32]

    @contextmanager
    def naming_path(self) -> Iterator[None]:
        """Turns a ValueError inside into a UserError that names the path."""
        try:
            yield
        except ValueError as error:
            raise UserError(f"dataset.path: {self.path}: {error}") from error

    def each(
        self, wanted: Collection[str], what: str, look: Callable[[str, bytes], Any]
    ) -> Iterator[tuple[str, str, Any]]:
        """Names, bytes with a checksum, and what `look(name, content)` gives, in the order of reading; a text where it
        fails. Threads pay for photographs: Pillow decodes beside the GIL."""
        if self.path.is_file():
            files = (file for file in read_archive(self.path, wanted.__contains__) if file[0] in wanted)
        else:
            files = ((name, read_file(self.path / name)) for name in sorted(wanted))

        def one(item: tuple[str, bytes]) -> tuple[str, str, Any]:
            name, content = item
            checksum = f"{len(content)} {zlib.crc32(content):08x}"
            try:
                return name, checksum, look(name, content)
            except Exception as error:  # Pillow's decoders raise errors of many kinds
                return name, checksum, str(error) or type(error).__name__

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for block in _blocks(track(files, what, len(wanted))):
                yield from pool.map(one, block)


def _blocks(files: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Some files at a time, bounded by their number and bytes."""
    block: list[tuple[str, bytes]] = []
    held = 0
    for name, content in files:
        block.append((name, content))
        held += len(content)
        if len(block) == 512 or held > AT_ONCE_BYTES:
            yield block
            block, held = [], 0
    if block:
        yield block


def list_directory(path: Path, seen: Seen) -> list[tuple[str, int, int]]:
    """Relative name, bytes and modification time (ns) of each file that is read, by name; linked folders are followed.

    Raises UserError for what cannot be read: nothing is left out unsaid.
    """
    found = []
    try:
        for folder, inner, names in os.walk(path, onerror=_raise, followlinks=True):
            inner[:] = [name for name in inner if not name.startswith(HIDDEN) and not _leads_back(Path(folder, name))]
            here = PurePosixPath(Path(folder).relative_to(path).as_posix())
            read = [name for name in names if seen.is_read(here / name)]
            for name in read:
                stat = Path(folder, name).stat()
                found.append((str(here / name), stat.st_size, stat.st_mtime_ns))
            if not read and not inner and here.parts:
                seen.empty.append(str(here))
    except OSError as error:
        raise UserError(f"dataset.path: {error.filename}: cannot be read ({error.strerror})") from error
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _leads_back(folder: Path) -> bool:
    """True for a link to a folder around it, which would be followed forever."""
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.absolute().parents}


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"dataset.path: {path}: cannot be read ({error.strerror})") from error


@dataclass(frozen=True)
class Member:
    """A file of an archive. read: its content; nothing is ever written to disk."""

    name: str
    size: int
    is_file: bool  # no link and no device
    read: Callable[[], bytes]


def read_archive(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The names of all files of an archive, in its order, each with its content if it is wanted.

    Raises UserError for an archive that is damaged or too large, or has links, devices or names that lead out of it.
    """
    total = 0
    try:
        for member in _zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path):
            name, refused = PurePosixPath(member.name), f"dataset.path: {path}: refused, {member.name!r}"
            if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                raise UserError(f"{refused} leads out of the archive")
            if not member.is_file:
                raise UserError(f"{refused} is a link or device, not a file")
            is_wanted, is_image = wanted(member.name), name.suffix.lower() in SUFFIXES and not is_hidden(name)
            if is_wanted or is_image:
                total += member.size
                if member.size > (MAX_IMAGE_BYTES if is_image else MAX_TEXT_BYTES) or total > MAX_UNPACKED_BYTES:
                    raise UserError(f"{refused} has {member.size:,} bytes")
            yield member.name, member.read() if is_wanted else b""
    except (*_DAMAGED, OSError) as error:
        raise UserError(f"dataset.path: {path}: not an archive that can be read to its end ({error})") from error


_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                is_file = member.external_attr >> 28 in (0, 8)  # the type that Unix wrote
                yield Member(member.filename, member.file_size, is_file, partial(_read_zipped, archive, member))


def _read_zipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """No more bytes than the directory says: a member may unpack to more."""
    if member.flag_bits & 1:
        raise UserError(f"dataset.path: {archive.filename}: {member.filename!r} is encrypted")
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) > member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} is larger than it says")
    return content


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if not member.isdir():
                yield Member(member.name, member.size, file is not None, file.read if file else bytes)
