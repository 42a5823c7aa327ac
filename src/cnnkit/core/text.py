"""Untrusted text, such as names of files, classes and runs: shown safely, and saved exactly in files.

A name may hold anything: control characters that recolour a terminal, markup, bytes that are not UTF-8. Inside the
program it is a string as returned by `os.fsdecode`, with a lone surrogate for each byte that cannot be decoded.
"""

import codecs
import csv
import json
import math
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from types import SimpleNamespace
from typing import Any

__all__ = [
    "counted",
    "decode",
    "encode",
    "file_name",
    "from_json",
    "from_toml",
    "hides_password",
    "html",
    "is_url",
    "markdown",
    "printable",
    "shell",
    "short",
    "some",
    "to_csv",
    "to_json",
    "whole_number",
    "without_passwords",
]

PASSWORD = re.compile(r"(://[^:@/\s]*):[^/?#\s]*@")  # of a URL
NOT_ASCII = re.compile(r"[^\x00-\x7f]")
LETTERS = 200  # of a name in an error
DIGITS = 18  # of a number, at most: a longer one is a name
MARKDOWN = re.compile(r"[\\`*\[\]<>|&~$#]|(?<!\w)_|_(?!\w)")  # an underscore within a word is literal


def printable(text: object) -> str:
    r"""Return text as one printable line: control and invisible characters, and undecodable bytes, are escaped.

    Passwords of URLs are hidden.

    >>> printable("a\x1b[31mred\n"), printable("\u202eabc"), printable("caf\udce9")
    ('a\\x1b[31mred\\n', '\\u202eabc', 'caf\\xe9')
    """
    words = without_passwords(str(text))
    return words if words.isprintable() else "".join(one if one.isprintable() else _escape(one) for one in words)


def without_passwords(text: str) -> str:
    """Return text with the passwords of URLs hidden.

    >>> without_passwords("https://me:secret@host/x")
    'https://me:***@host/x'
    """
    return PASSWORD.sub(r"\1:***@", text) if "://" in text else text


def hides_password(text: str) -> bool:
    """Return whether a URL has `without_passwords`'s asterisks in place of a password.

    >>> hides_password("https://me:***@host/x"), hides_password("https://me:secret@host/x"), hides_password("a/b")
    (True, False, False)
    """
    return PASSWORD.search(text) is not None and without_passwords(text) == text


def html(text: object) -> str:
    """Return text escaped for HTML, in an element or an attribute."""
    return escape(printable(text))


def markdown(text: object) -> str:
    """Return text escaped for Markdown."""
    return MARKDOWN.sub(r"\\\g<0>", printable(text))


def is_url(text: str) -> bool:
    """Return whether a text is a URL, of any scheme, rather than a path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE) is not None


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first few of the names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(map(short, names[:most])) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(value: object) -> str:
    """Return a value as text, truncated to LETTERS."""
    words = str(value)
    return words if len(words) <= LETTERS else f"{words[:LETTERS]}..."


def shell(text: object) -> str:
    r"""Return text quoted for bash, zsh and ksh.

    >>> print(shell("runs/a-1"), shell("my runs"), shell("caf\udce9"))
    runs/a-1 'my runs' $'caf\xe9'
    """
    words = str(text)
    if words.isprintable():
        return shlex.quote(words)
    quoted = printable(re.sub(r"[\\']", r"\\\g<0>", words))
    return f"$'{quoted}'"


def file_name(text: str) -> str:
    """Return text for a file name, with "_" for unprintable characters."""
    return "".join(one if one.isprintable() else "_" for one in text)


def encode(text: str) -> bytes:
    """Return the bytes of text that holds names; each name as the bytes of the file system."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # a locale without UTF-8, and text that is not from file names
        return text.encode("utf-8", "surrogateescape")


def decode(content: bytes) -> str:
    """Return the text that `encode` encoded."""
    return os.fsdecode(content)


def to_json(content: Any, *, ascii: bool = False, indent: int | None = 1) -> str:
    r"""Return JSON, in UTF-8 or ASCII; unprintable characters, and bytes that are not UTF-8, are escaped: "caf\udce9".

    NaN and Inf, which JSON does not have, become null.
    """
    text = json.dumps(_finite(content), indent=indent, ensure_ascii=ascii, allow_nan=False)
    with suppress(UnicodeEncodeError):  # a locale without UTF-8: UTF-8 of its bytes
        text = os.fsencode(text).decode("utf-8", "surrogateescape")
    return NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def from_json(content: bytes | str) -> Any:
    """Return the value of JSON, with names decoded as by `os.fsdecode`; raises ValueError for invalid JSON."""
    with _plain():
        value = json.loads(content)
    return value if sys.getfilesystemencoding() == "utf-8" else _native(value)


def from_toml(content: bytes) -> dict[str, Any]:
    """Return the tables of TOML, with names decoded as by `os.fsdecode`; raises ValueError for invalid TOML."""
    with _plain():
        tables = tomllib.loads(decode(content.removeprefix(codecs.BOM_UTF8)))
        _require_digits(tables)
        return tables


def whole_number(text: str) -> int | None:
    """Return the integer that a text of digits is; None for other text and for more than DIGITS digits."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return comma-separated values, a line for each row; a cell with a line break is quoted."""
    lines: list[str] = []
    csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n").writerows(rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


@contextmanager
def _plain() -> Iterator[None]:
    """Raise a readable ValueError for content that is nested too deeply, and for too long numbers."""
    try:
        yield
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        if "set_int_max_str_digits" not in str(error):
            raise
        raise ValueError("a number has too many digits") from error


def _require_digits(value: Any) -> None:
    """Raise ValueError for an integer beyond TOML's 64 bits; Python cannot print the longest ones."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number has too many digits")
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _require_digits(one)


def _finite(value: Any) -> Any:
    """Return a value for JSON with None in place of NaN and Inf."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _native(value: Any) -> Any:
    """Return a value from JSON with strings as returned by `os.fsdecode` in a locale without UTF-8."""
    if isinstance(value, list):
        return [_native(one) for one in value]
    if isinstance(value, dict):
        return {_native(name): _native(one) for name, one in value.items()}
    return decode(value.encode("utf-8", "surrogateescape")) if isinstance(value, str) else value


def _escape(one: str) -> str:
    code = ord(one)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF:  # its \x.. would be a byte
        return f"\\u{code:04x}"
    return one.encode("unicode_escape").decode()
