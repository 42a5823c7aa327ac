"""The storage of a study that several workers share: a database or a journal file."""

import os
import time
from pathlib import Path
from typing import Any

import sqlalchemy.engine
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.files import make_folder, open_file
from cnnkit.core.text import without_passwords

__all__ = ["StudyError", "one_line", "open_storage"]

JOURNALS = (".journal", ".log")
LOCK_SECONDS = 60  # to wait while another worker writes


class StudyError(CnnkitError):
    """The storage of the study cannot be read or written."""


def open_storage(text: str) -> tuple[str, BaseStorage]:
    """Return the storage that `--storage` names, created if missing, and its name without the password.

    Raises UsageError for an unknown kind of storage, CnnkitError if it cannot be opened.
    """
    if Path(text).suffix in JOURNALS and "://" not in text:
        try:
            return text, _open_journal(Path(text))
        except CnnkitError:
            raise
        except Exception as error:  # of optuna, for a file that is not a journal
            raise StudyError(f"{text} cannot be used as a journal: {one_line(error)}") from error
    try:
        url = sqlalchemy.engine.make_url(text)
    except SQLAlchemyError:
        url = None
    if url is None or url.get_backend_name() not in ("sqlite", "postgresql") or not url.database:
        raise UsageError(
            f"--storage takes sqlite:///FILE, postgresql://USER@HOST/DATABASE or a file that ends in "
            f"{' or '.join(JOURNALS)}, not {text!r}"
        )
    where = url.render_as_string(hide_password=True)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        make_folder(Path(url.database or "").parent)
        options["connect_args"] = {"timeout": LOCK_SECONDS}
    for trial in (1, 2, 3):
        try:
            return where, RDBStorage(url.render_as_string(hide_password=False), options)
        except ImportError as error:
            raise CnnkitError(f'{where} needs a driver: pip install "psycopg[binary]"') from error
        except (SQLAlchemyError, RuntimeError) as error:  # two workers may create the tables at the same time
            if trial == 3:
                raise StudyError(f"{where} cannot be used: {one_line(error)}") from error
            time.sleep(1)
    raise AssertionError


def _open_journal(path: Path) -> JournalStorage:
    """Open a journal file; an incomplete last line, cut off by a crash or a full disk, is removed."""
    make_folder(path.parent)
    if path.exists():
        open_file(path).close()  # raises for a pipe or device, which could block forever
    lock = JournalFileSymlinkLock(str(path))
    backend = JournalFileBackend(str(path), lock)
    lock.acquire()
    try:
        with open_file(path) as file:
            content = file.read()
        if content and not content.startswith(b'{"op_code":'):
            raise ValueError("it is not a journal")
        if (end := content.rfind(b"\n") + 1) < len(content):
            os.truncate(path, end)
    finally:
        lock.release()
    return JournalStorage(backend)


def one_line(error: BaseException) -> str:
    """Return the innermost cause on one line, without the password of a database."""
    while error.__cause__ is not None:
        error = error.__cause__
    return without_passwords(" ".join(str(error).split())) or type(error).__name__
