"""The cache: folders that can be written, and JSON records with checksums."""

import functools
import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cnnkit.core.files import CannotWrite, cannot_write, is_file, make_folder, read_bytes
from cnnkit.core.limits import MAX_RECORD_BYTES
from cnnkit.core.places import cache_dir, is_private, private_folder

__all__ = ["cache_folder", "cached_file", "private", "read_record", "to_record"]

log = logging.getLogger(__name__)

T = TypeVar("T")
HEAD = '{{"sha256": "{}", '
MODE = 0o755  # of folders: only the user may write, for any umask


def cache_folder(*parts: str, mode: int = MODE) -> Path:
    """Return a folder of the cache, creating it if it is missing.

    If it cannot be written, log that and return a private folder that is deleted when the process ends. Raises
    CannotWrite if there can be none either.
    """
    folder = cache_dir().joinpath(*parts)
    try:
        make_folder(folder.parent, MODE)
        make_folder(folder, mode)
        for one in {folder, folder.parent}:  # the parent holds locks
            with tempfile.TemporaryFile(dir=one):
                pass
    except CannotWrite as error:
        return private(folder, str(error))
    except OSError as error:
        return private(folder, str(cannot_write(folder, error)))
    return folder


def cached_file(*parts: str) -> Path:
    """Return the path of a file in the cache: of the existing one, or in a folder that can be written."""
    path = cache_dir().joinpath(*parts)
    return path if is_file(path) else cache_folder(*parts[:-1]) / parts[-1]


@functools.cache  # one log line each
def private(folder: Path, reason: str) -> Path:
    """Return a private folder to use instead of one of the cache, and log the reason; raises CannotWrite."""
    try:
        if is_private(folder):
            raise CannotWrite(reason, reason)
        instead = make_folder(private_folder().joinpath(*folder.parts[-2:]), 0o700)
    except OSError as error:
        raise CannotWrite(f"{reason}; nor is there a temporary folder ({error.strerror})", reason) from error
    log.warning("%s (using %s until this process ends)", reason, instead)
    return instead


def to_record(content: dict[str, Any]) -> str:
    """Return JSON with its own checksum, for `read_record`; names need not be UTF-8."""
    body = json.dumps(content)[1:]
    return HEAD.format(hashlib.sha256(body.encode()).hexdigest()) + body


def read_record(path: Path, kind: TypeAdapter[T]) -> T | None:
    """Return the content of a record as a `kind`, or None for a missing or, with a log line, a corrupt file."""
    try:
        content = read_bytes(path, MAX_RECORD_BYTES)
        start = len(HEAD.format("")) + 64
        if content[:start].decode() != HEAD.format(hashlib.sha256(content[start:]).hexdigest()):
            raise ValueError("its SHA-256 does not match")
        return kind.validate_python(json.loads(b"{" + content[start:]))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    log.warning("%s is corrupt, or of another version (%s): it will be rebuilt", path, reason)
    return None
