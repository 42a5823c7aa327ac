"""What the cache keeps: folders that can be written, and records that are what was written."""

import functools
import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cnnkit.core.files import CannotWrite, cannot_write, is_file, make_folder, read_bytes
from cnnkit.core.places import cache_dir, is_private, private_folder

__all__ = ["cache_folder", "cached_file", "private", "read_record", "to_record"]

log = logging.getLogger(__name__)

T = TypeVar("T")
HEAD = '{{"sha256": "{}", '
MAX_BYTES = 1 << 33
MODE = 0o755  # of folders: what only the user can write can be relied on, whatever the umask


def cache_folder(*parts: str, mode: int = MODE) -> Path:
    """Return a folder of the cache, made where it is missing.

    Where it cannot be written it is a private one, which goes when the process ends, and a line in the log says so.
    Raises CannotWrite if there can be none either.
    """
    folder = cache_dir().joinpath(*parts)
    try:
        make_folder(folder.parent, MODE)
        make_folder(folder, mode)
        for one in {folder, folder.parent}:  # beside it are locks
            with tempfile.TemporaryFile(dir=one):
                pass
    except CannotWrite as error:
        return private(folder, str(error))
    except OSError as error:
        return private(folder, str(cannot_write(folder, error)))
    return folder


def cached_file(*parts: str) -> Path:
    """Return the path of a file in the cache: of the one that is there, or of one that can be written."""
    path = cache_dir().joinpath(*parts)
    return path if is_file(path) else cache_folder(*parts[:-1]) / parts[-1]


@functools.cache  # one line for each
def private(folder: Path, reason: str) -> Path:
    """Return a private folder in the place of one of the cache, and log the reason; raises CannotWrite."""
    try:
        if is_private(folder):
            raise CannotWrite(reason, reason)
        instead = make_folder(private_folder().joinpath(*folder.parts[-2:]), 0o700)
    except OSError as error:
        raise CannotWrite(f"{reason}; nor is there a temporary folder ({error.strerror})", reason) from error
    log.warning("%s (until then in %s, while this process lasts)", reason, instead)
    return instead


def to_record(content: dict[str, Any]) -> str:
    """Return JSON with a checksum of itself, for `read_record`; names may be no UTF-8."""
    body = json.dumps(content)[1:]
    return HEAD.format(hashlib.sha256(body.encode()).hexdigest()) + body


def read_record(path: Path, kind: TypeAdapter[T]) -> T | None:
    """Return what `to_record` made of a `kind`, or None if there is no such file, or one that is not as it was.

    The latter is logged.
    """
    try:
        content = read_bytes(path, MAX_BYTES)
        start = len(HEAD.format("")) + 64
        if content[:start].decode() != HEAD.format(hashlib.sha256(content[start:]).hexdigest()):
            raise ValueError("its SHA-256 is another")
        return kind.validate_python(json.loads(b"{" + content[start:]))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    log.warning("%s is corrupt, or of another version (%s): it is made anew", path, reason)
    return None
