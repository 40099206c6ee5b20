"""Where a search's trials are kept: a journal file, or a database that several machines reach."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dlx.config.errors import UserError

if TYPE_CHECKING:
    import optuna

LOCK_SECONDS = 10  # that a storage may be locked: writing takes milliseconds, so its owner is dead or stopped


class StudyError(UserError):
    """The storage does not answer, or has another study than is meant."""


class NoStudy(StudyError):
    """There is none of that name."""


@contextlib.contextmanager
def clear(where: str) -> Iterator[None]:
    """A storage's many errors as one line."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        cause = error.__cause__ or error
        raise StudyError(f"{where}: needs a package that is not installed ({cause})") from error
    except (OptunaError, SQLAlchemyError, OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        text = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise StudyError(f"{where}: cannot be used: {text}") from error


def open_storage(storage: str, *, is_there: bool = False) -> optuna.storages.BaseStorage:
    """storage: the path of a journal file, or a database's URL. is_there: it is not made anew."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = storage_path(storage)
    if path is not None and is_there and not path.is_file():
        raise FileNotFoundError(f"{path} is gone")
    if "://" not in storage:
        lock = JournalFileOpenLock(storage, grace_period=LOCK_SECONDS)  # a dead owner's is taken away
        return optuna.storages.JournalStorage(JournalFileBackend(storage, lock))
    arguments = {"connect_args": {"timeout": LOCK_SECONDS}} if storage.startswith("sqlite") else {}
    return optuna.storages.get_storage(optuna.storages.RDBStorage(storage, engine_kwargs=arguments))


def storage_path(storage: str) -> Path | None:
    """The file of a journal or of an SQLite database."""
    if "://" not in storage:
        return Path(storage)
    from sqlalchemy.engine import make_url

    url = make_url(storage)
    is_file = url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:")
    return Path(url.database) if is_file and url.database else None


def absolute(storage: str) -> str:
    """The same from any directory. Raises StudyError for what is no URL."""
    from sqlalchemy.engine import make_url

    with clear(f"--storage {redacted(storage)}"):
        path = storage_path(storage)
        if path is None:
            return storage
        if "://" not in storage:
            return str(path.expanduser().absolute())
        return make_url(storage).set(database=str(path.absolute())).render_as_string(hide_password=False)


def redacted(storage: str) -> str:
    """Without its password, for all that is written or shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if "://" not in storage:
        return storage
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        return storage.partition("://")[0] + "://..."
    hidden = {key: "***" for key in url.query if "pass" in key.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def check_storage(storage: str, where: str) -> None:
    """Raises StudyError where it cannot be reached. Writes nothing but, in a database, Optuna's tables."""
    path = storage_path(storage)
    with clear(where):
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent}")
        if "://" in storage:
            open_storage(storage).get_all_studies()
        elif path is not None and path.exists():
            with path.open("r+b"):
                pass


def mend_journal(path: Path) -> None:
    """Cuts off a last line that was not written to its end (a power cut, a full disk): Optuna could not read on."""
    content = path.read_bytes() if path.is_file() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
