"""Where a study lives that several workers share: a data base, or a journal file."""

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
LOCK_SECONDS = 60  # to wait for another worker's writing


class StudyError(CnnkitError):
    """What holds the study cannot be read or written."""


def open_storage(text: str) -> tuple[str, BaseStorage]:
    """Return what `--storage` names, without its password, and the storage itself, made if it is not there.

    Raises UsageError for what is none, CnnkitError if it cannot be reached.
    """
    if Path(text).suffix in JOURNALS and "://" not in text:
        try:
            return text, _open_journal(Path(text))
        except CnnkitError:
            raise
        except Exception as error:  # what optuna says to a journal that is none
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
        except (SQLAlchemyError, RuntimeError) as error:  # two workers may make the tables at the same moment
            if trial == 3:
                raise StudyError(f"{where} cannot be used: {one_line(error)}") from error
            time.sleep(1)
    raise AssertionError


def _open_journal(path: Path) -> JournalStorage:
    """Open a journal file, without the end of a last line that a crash or a full disk tore."""
    make_folder(path.parent)
    if path.exists():
        open_file(path).close()  # no pipe or device, which could be waited for without end
    lock = JournalFileSymlinkLock(str(path))
    backend = JournalFileBackend(str(path), lock)
    lock.acquire()
    try:
        with open_file(path) as file:
            content = file.read()
        if content and not content.startswith(b'{"op_code":'):
            raise ValueError("it is another kind of file")
        if (end := content.rfind(b"\n") + 1) < len(content):
            os.truncate(path, end)
    finally:
        lock.release()
    return JournalStorage(backend)


def one_line(error: BaseException) -> str:
    """Return the innermost reason, on one line, without the password of a data base."""
    while error.__cause__ is not None:
        error = error.__cause__
    return without_passwords(" ".join(str(error).split())) or type(error).__name__
