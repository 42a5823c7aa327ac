"""What is in tar files of samples, as WebDataset has them: KEY.jpg beside KEY.cls or KEY.json.

KEY is a member's path up to the first dot of its name. What is found is kept in the cache.
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
WORDS = ("class", "label")  # in the JSON; the first one counts


Count = Annotated[StrictInt, Field(ge=0)]


@dataclass
class Contents:
    """The samples of a tar file, in their order, and what is wrong with it.

    `size` is (H, W) if all pictures have it, `grey` says that all are. A sample that cannot be used is among
    `problems`, by name and with the reason; `damage` says why the file cannot be read, or not to its end.
    """

    bytes: Count | None = None
    version: list[StrictInt | StrictStr] | None = None  # what tells it from another file of its name (`version_of`)
    offsets: list[Count] = field(default_factory=list)  # of the pictures' bytes
    sizes: list[Count] = field(default_factory=list)
    labels: list[Count | StrictStr] = field(default_factory=list)
    size: tuple[Count, Count] | None = None
    grey: StrictBool = True
    problems: list[tuple[str, str]] = field(default_factory=list)
    damage: str = ""

    def add(self, picture: tarfile.TarInfo, header: Header, label: int | str) -> None:
        """Count one more sample."""
        size = header.height, header.width
        self.size = size if self.size == size or not self.offsets else None
        self.grey = self.grey and header.grey
        self.offsets.append(picture.offset_data)
        self.sizes.append(picture.size)
        self.labels.append(label)


class _Kept(BaseModel):
    """What the cache keeps of a tar file."""

    format: Literal[3]
    contents: Contents

    @field_validator("contents")
    @classmethod
    def _agrees(cls, found: Contents) -> Contents:
        if not len(found.offsets) == len(found.sizes) == len(found.labels):
            raise ValueError("offsets, sizes and labels are not equally many")
        ends = (offset + size for offset, size in zip(found.offsets, found.sizes, strict=True))
        if max(found.sizes, default=0) > MAX_IMAGE_BYTES or (
            found.bytes is not None and max(ends, default=0) > found.bytes
        ):
            raise ValueError("a picture lies beyond the end of the file")
        return found


_KEPT = TypeAdapter(_Kept)


@dataclass
class _Sample:
    key: str
    picture: tarfile.TarInfo | None = None
    header: Header | DataError | None = None
    labels: dict[str, bytes | DataError] = field(default_factory=dict)


def read_tars(places: Sequence[str], workers: int, progress: bool) -> list[Contents]:
    """Return what is in each tar file, by path or URL; of several processes one reads and the others wait for it."""
    cache = cache_folder("shards")

    def read(place: str) -> Contents:
        path = cache / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"
        with suppress(OSError):  # no such shard
            known = read_record(path, _KEPT)
            if known and version_of(place) in (None, known.contents.version):
                return known.contents
        contents = read_tar(place)
        if not contents.damage and version_of(place) == contents.version:  # else it has changed meanwhile
            sweep(path)
            try:
                atomic_write(path, to_record({"format": VERSION, "contents": asdict(contents)}))
            except CannotWrite as error:
                log.warning("%s; %s is read anew each time until then", error, place)
        return contents

    with lock(cache / ".lock"), Counter("reading through the shards", len(places), progress) as counter:
        result = []
        for contents in ahead(read, places, workers, 2 * workers):
            result.append(contents)
            counter.advance(1)
    return result


def read_tar(place: str) -> Contents:
    """Return what is in a tar file; raises CnnkitError only if a server cannot be reached."""
    contents = Contents()
    try:
        contents.version = version_of(place)
        with open_bytes(place) as raw, io.BufferedReader(raw, BUFFER) as file:
            try:
                metered = Metered(file)
                with open_tar(metered) as tar:
                    for sample in _samples(tar, metered, is_url(place)):
                        _add(contents, sample)
                    contents.damage = _wrong_end(file, tar.offset)
            finally:
                contents.bytes = raw.length
    except (tarfile.TarError, ValueError, OSError) as error:
        contents.damage = f"no tar file, or a compressed or corrupt one ({error})"
    except DataError as error:
        contents.damage = str(error)
    return contents


def member_name(header: bytes) -> str:
    """Return the name in the header of a member, as far as it fits in there."""
    name, prefix = (
        header[start:stop].split(b"\0")[0].decode(errors="replace") for start, stop in ((0, 100), (345, 500))
    )
    return f"{prefix}/{name}" if prefix else name


def _samples(tar: tarfile.TarFile, metered: Metered, remote: bool) -> Iterator[_Sample]:
    """Yield what belongs together; each member is read where it lies, for on a server nothing goes backwards."""
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
        elif not sample.picture:
            sample.picture = member
            sample.header = _too_large("it", member, MAX_IMAGE_BYTES) or _header(
                io.BytesIO(file.read()) if remote else file
            )
    yield sample


def _too_large(what: str, member: tarfile.TarInfo, most: int) -> DataError | None:
    """Return why a member is not read, if it has more than `most` bytes."""
    return DataError(f"refused: {what} has {member.size:,} bytes, more than {most:,}") if member.size > most else None


def _header(file: IO[bytes]) -> Header | DataError:
    try:
        return read_header(file)
    except DataError as error:
        return error


def _add(contents: Contents, sample: _Sample) -> None:
    if sample.picture is None or sample.header is None:
        if ".cls" in sample.labels:
            contents.problems.append((sample.key, "there is no image beside its label"))
        return
    try:
        if isinstance(sample.header, DataError):
            raise sample.header
        contents.add(sample.picture, sample.header, _label(sample.labels))
    except DataError as error:
        contents.problems.append((sample.picture.name, str(error)))


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
    raise DataError(f"beside it is no .cls, and no .json that says {' or '.join(WORDS)}")


def _number_or_name(text: str) -> int | str:
    text = text.strip()
    if not text or text.startswith("-"):
        raise DataError(f"its label is {text!r}")
    number = whole_number(text)
    return text if number is None else number


def _wrong_end(file: IO[bytes], offset: int) -> str:
    """Say what is wrong with what lies where no member begins any more: tarfile takes anything for the end."""
    file.seek(offset)
    block = file.read(HEADER)
    if not block:
        return f"it ends at byte {offset:,} without an end mark: it may be cut short"
    return f"it is damaged at byte {offset:,}" if any(block) else ""
