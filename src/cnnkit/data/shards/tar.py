"""The samples in tar files of WebDataset's format: KEY.jpg beside KEY.cls or KEY.json.

KEY is a member's path up to the first dot of its name. The result of reading a tar file is cached.
"""

import hashlib
import io
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import IO, Annotated, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, TypeAdapter, field_validator

from cnnkit.core.cache import cache_folder, read_record, to_record
from cnnkit.core.errors import DataError
from cnnkit.core.files import CannotWrite, atomic_write, lock, sweep
from cnnkit.core.limits import MAX_IMAGE_BYTES
from cnnkit.core.parallel import ahead
from cnnkit.core.progress import Counter
from cnnkit.core.text import from_json, is_url, whole_number
from cnnkit.data.images.decode import Header, read_header
from cnnkit.data.images.formats import SUFFIXES
from cnnkit.data.members import Metered, members, open_tar
from cnnkit.data.shards.remote import open_bytes, version_of

__all__ = ["HEADER", "Contents", "member_name", "read_tar", "read_tars"]

log = logging.getLogger(__name__)

VERSION = 3
BUFFER = 1 << 16  # bytes
HEADER = 512  # bytes before the content of a member
LABELS = (".cls", ".json")
LONGEST_LABEL = 1 << 20  # bytes
WORDS = ("class", "label")  # keys of the JSON; the first one is used


Count = Annotated[StrictInt, Field(ge=0)]


@dataclass
class Contents:
    """The samples of a tar file, in order, and its problems.

    `size` is (H, W) if all images have that size, `grey` whether all are. `problems` lists unusable samples with
    reasons; `error` says why the file cannot be read, or not to its end.
    """

    bytes: Count | None = None
    version: list[StrictInt | StrictStr] | None = None  # changes when the file is replaced (`version_of`)
    offsets: list[Count] = field(default_factory=list)  # of the images' bytes
    sizes: list[Count] = field(default_factory=list)
    labels: list[Count | StrictStr] = field(default_factory=list)
    size: tuple[Count, Count] | None = None
    grey: StrictBool = True
    problems: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""

    def add(self, image: tarfile.TarInfo, header: Header, label: int | str) -> None:
        """Add a sample."""
        size = header.height, header.width
        self.size = size if self.size == size or not self.offsets else None
        self.grey = self.grey and header.grey
        self.offsets.append(image.offset_data)
        self.sizes.append(image.size)
        self.labels.append(label)


class _Record(BaseModel):
    """The cached record of a tar file."""

    format: Literal[3]
    contents: Contents

    @field_validator("contents")
    @classmethod
    def _agrees(cls, found: Contents) -> Contents:
        if not len(found.offsets) == len(found.sizes) == len(found.labels):
            raise ValueError("the numbers of offsets, sizes and labels differ")
        ends = (offset + size for offset, size in zip(found.offsets, found.sizes, strict=True))
        if max(found.sizes, default=0) > MAX_IMAGE_BYTES or (
            found.bytes is not None and max(ends, default=0) > found.bytes
        ):
            raise ValueError("an image is beyond the end of the file")
        return found


_RECORD = TypeAdapter(_Record)


@dataclass
class _Sample:
    key: str
    image: tarfile.TarInfo | None = None
    header: Header | DataError | None = None
    labels: dict[str, bytes | DataError] = field(default_factory=dict)


def read_tars(places: Sequence[str], workers: int, progress: bool) -> list[Contents]:
    """Return the contents of each tar file, by path or URL; of several processes, one reads and the others wait."""
    cache = cache_folder("shards")

    def read(place: str) -> Contents:
        path = cache / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"
        with suppress(OSError):  # no such shard
            known = read_record(path, _RECORD)
            if known and version_of(place) in (None, known.contents.version):
                return known.contents
        contents = read_tar(place)
        if not contents.error and version_of(place) == contents.version:  # else it has changed meanwhile
            sweep(path)
            try:
                atomic_write(path, to_record({"format": VERSION, "contents": asdict(contents)}))
            except CannotWrite as error:
                log.warning("%s; until then %s is read again each time", error, place)
        return contents

    with lock(cache / ".lock"), Counter("reading the shards", len(places), progress) as counter:
        result = []
        for contents in ahead(read, places, workers, 2 * workers):
            result.append(contents)
            counter.advance(1)
    return result


def read_tar(place: str) -> Contents:
    """Return the contents of a tar file; raises CnnkitError only if a server cannot be reached."""
    contents = Contents()
    try:
        contents.version = version_of(place)
        with open_bytes(place) as raw, io.BufferedReader(raw, BUFFER) as file:
            try:
                metered = Metered(file)
                with open_tar(metered) as tar:
                    for sample in _samples(tar, metered, is_url(place)):
                        _add(contents, sample)
                    contents.error = _wrong_end(file, tar.offset)
            finally:
                contents.bytes = raw.length
    except (tarfile.TarError, ValueError, OSError) as error:
        contents.error = f"not a tar file, or a compressed or corrupt one ({error})"
    except DataError as error:
        contents.error = str(error)
    return contents


def member_name(header: bytes) -> str:
    """Return the name in the header of a member, which may be truncated."""
    name, prefix = (
        header[start:stop].split(b"\0")[0].decode(errors="replace") for start, stop in ((0, 100), (345, 500))
    )
    return f"{prefix}/{name}" if prefix else name


def _samples(tar: tarfile.TarFile, metered: Metered, remote: bool) -> Iterator[_Sample]:
    """Yield the samples; each member is read in order, as remote files are slow to read backwards."""
    sample = _Sample("")
    for member in members(tar, metered):
        folder, slash, name = member.name.rpartition("/")
        stem, dot, suffix = name.partition(".")
        key, kind = f"{folder}{slash}{stem}", (dot + suffix).lower()
        if not stem or not member.isreg() or member.issparse() or kind not in (*SUFFIXES, *LABELS):
            continue
        file = tar.extractfile(member)
        assert file
        if key != sample.key:
            yield sample
            sample = _Sample(key)
        if kind in LABELS:
            sample.labels[kind] = _too_large("its label", member, LONGEST_LABEL) or file.read()
        elif not sample.image:
            sample.image = member
            sample.header = _too_large("it", member, MAX_IMAGE_BYTES) or _header(
                io.BytesIO(file.read()) if remote else file
            )
    yield sample


def _too_large(what: str, member: tarfile.TarInfo, most: int) -> DataError | None:
    """Return the error for a member of more than `most` bytes, else None."""
    return DataError(f"refused: {what} has {member.size:,} bytes, more than {most:,}") if member.size > most else None


def _header(file: IO[bytes]) -> Header | DataError:
    try:
        return read_header(file)
    except DataError as error:
        return error


def _add(contents: Contents, sample: _Sample) -> None:
    if sample.image is None or sample.header is None:
        if ".cls" in sample.labels:
            contents.problems.append((sample.key, "its label has no image"))
        return
    try:
        if isinstance(sample.header, DataError):
            raise sample.header
        contents.add(sample.image, sample.header, _label(sample.labels))
    except DataError as error:
        contents.problems.append((sample.image.name, str(error)))


def _label(labels: dict[str, bytes | DataError]) -> int | str:
    content = labels.get(".cls", labels.get(".json", b"{}"))
    if isinstance(content, DataError):
        raise content
    try:
        if ".cls" in labels:
            return _number_or_name(content.decode())
        content = from_json(content)
    except ValueError as error:
        raise DataError(f"its label cannot be read ({error})") from error
    for word in WORDS:
        if isinstance(content, dict) and isinstance(content.get(word), int | str):
            return _number_or_name(str(content[word]))
    raise DataError(f"it has no .cls, and no .json with {' or '.join(WORDS)}")


def _number_or_name(text: str) -> int | str:
    text = text.strip()
    if not text or text.startswith("-"):
        raise DataError(f"its label is {text!r}")
    number = whole_number(text)
    return text if number is None else number


def _wrong_end(file: IO[bytes], offset: int) -> str:
    """Return why the end of the members is not a proper end, as tarfile accepts anything; "" if it is."""
    file.seek(offset)
    block = file.read(HEADER)
    if not block:
        return f"it ends at byte {offset:,} without an end mark: it may be truncated"
    return f"it is corrupt at byte {offset:,}" if any(block) else ""
