"""Where a search's trials are kept: a journal file, or a database that several machines reach."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import OptunaError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dlx.config.errors import UserError

LOCK_SECONDS = 10  # a storage locked for longer has a dead or stopped owner: a write takes milliseconds


class StudyError(UserError):
    """The storage fails, or has a study of something else."""


class NoStudy(StudyError):
    """The storage has no study of that name."""


@contextlib.contextmanager
def one_line_errors(storage_shown: str) -> Iterator[None]:
    """Turns the errors of Optuna, SQLAlchemy and the file system into a StudyError with one line."""
    try:
        yield
    except ImportError as error:
        cause = error.__cause__ or error
        raise StudyError(f"{storage_shown}: needs a package that is not installed ({cause})") from error
    except (OptunaError, SQLAlchemyError, OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        text = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise StudyError(f"{storage_shown}: cannot be used: {text}") from error


def open_storage(storage: str, *, exists: bool = False) -> optuna.storages.BaseStorage:
    """storage: the path of a journal file, or a database's URL. exists: a missing file is an error."""
    path = storage_path(storage)
    if path is not None and exists and not path.is_file():
        raise FileNotFoundError(f"{path} is gone")
    if "://" not in storage:
        lock = JournalFileOpenLock(storage, grace_period=LOCK_SECONDS)  # removes the lock of a dead owner
        return optuna.storages.JournalStorage(JournalFileBackend(storage, lock))
    arguments = {"connect_args": {"timeout": LOCK_SECONDS}} if storage.startswith("sqlite") else {}
    return optuna.storages.get_storage(optuna.storages.RDBStorage(storage, engine_kwargs=arguments))


def storage_path(storage: str) -> Path | None:
    """The file of a journal or of an SQLite database; None for a server."""
    if "://" not in storage:
        return Path(storage)
    url = make_url(storage)
    is_file = url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:")
    return Path(url.database) if is_file and url.database else None


def absolute(storage: str) -> str:
    """The storage with an absolute path. Raises StudyError for an invalid URL."""
    with one_line_errors(f"--storage {redacted(storage)}"):
        path = storage_path(storage)
        if path is None:
            return storage
        if "://" not in storage:
            return str(path.expanduser().absolute())
        return make_url(storage).set(database=str(path.absolute())).render_as_string(hide_password=False)


def redacted(storage: str) -> str:
    """The storage without its password, for files and messages."""
    if "://" not in storage:
        return storage
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        return storage.partition("://")[0] + "://..."
    hidden = {key: "***" for key in url.query if "pass" in key.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def repair_journal(path: Path) -> None:
    """Cuts off an incomplete last line (a power cut, a full disk), which Optuna could not read."""
    content = path.read_bytes() if path.is_file() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
