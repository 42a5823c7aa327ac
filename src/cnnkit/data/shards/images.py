"""The images in tar shards: read forwards and decoded by threads, in a shuffled order that can be resumed.

For an epoch, the shuffled shards form a tape, which is cut into lanes of equal length that are read in parallel; within
a window of a lane, images are shuffled. The order takes an image of each lane in turn. It is computed from the index
only: an epoch can be resumed without reading what comes before, and each of several processes reads its own lanes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.device import mix_seed
from cnnkit.core.errors import DataError
from cnnkit.core.parallel import ahead, chunks
from cnnkit.data.images.decode import decode_image
from cnnkit.data.shards.index import Shard, ShardIndex
from cnnkit.data.shards.remote import ByteFile, open_bytes, read_range
from cnnkit.data.shards.tar import HEADER, member_name
from cnnkit.data.split import require_fraction
from cnnkit.data.storage import ALL, Decoding, Rows

__all__ = ["LANES", "ShardImages"]

LANES = 8
WINDOW, WINDOW_BYTES = 512, 1 << 25  # images of a lane, or their bytes, whichever is less
BLOCK, GAP = 1 << 20, 1 << 16  # bytes read at once; bytes between two images that are read and dropped
CHUNK = 64  # images that a thread decodes at a time, at most
SAMPLE, STRETCH = 4096, 256  # images

Content = bytes | str  # an image file with its tar header, or why its shard cannot be read


class _Piece(NamedTuple):
    """Work of a thread: some numbers of a part."""

    rows: np.ndarray
    contents: list[Content]
    images: np.ndarray
    kept: Tensor
    numbers: Sequence[int]


@dataclass(frozen=True)
class ShardImages(Decoding):
    """Images in tar shards; `rows` are those of their `index`."""

    index: ShardIndex

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the readable images of these rows, and their positions among the rows."""
        wanted, places = self.rows[rows].unique(return_inverse=True)
        if not len(wanted):
            return torch.empty(0, *self.shape[1:], dtype=torch.uint8), ALL
        [(images, kept)] = replace(self, rows=wanted)._stream([torch.arange(len(wanted))])
        return (images[places], ALL) if kept.all() else (images[places[kept[places]]], kept[places])

    def places(self) -> bytes:
        """Return the place of each image's bytes in its shard."""
        content: bytes = self.index.samples[self.rows.numpy()].tobytes()
        return content

    def sample(self) -> "ShardImages":
        """Return SAMPLE of the images, in stretches that are fast to read."""
        if len(self.rows) <= SAMPLE:
            return self
        starts = torch.linspace(0, len(self.rows) - STRETCH, SAMPLE // STRETCH, dtype=torch.float64).long()
        return self.subset((starts[:, None] + torch.arange(STRETCH)).flatten())

    def tape(self, draw: torch.Generator) -> Tensor:
        """Return the rows in order of the shuffled shards."""
        shards = torch.from_numpy(self.index.shard_of(self.rows.numpy()))
        return torch.randperm(len(self.index.shards), generator=draw)[shards].argsort(stable=True)

    def order(self, seed: int, epoch: int, world: int) -> Tensor:
        """Return the order of an epoch, int64: the same for each number of processes, `world`, that divides LANES.

        Rank r takes the images r, r + world, r + 2 world and so on.
        """
        draw = torch.Generator().manual_seed(mix_seed(seed, epoch))
        tape = self.tape(draw)
        number = torch.arange(len(tape))
        moved = number + self.window * torch.rand(len(tape), generator=draw, dtype=torch.float64)
        order = torch.empty_like(tape)
        lanes = -(-LANES // world) * world
        start = 0
        for lane in range(lanes):
            stop = start + len(range(lane, len(tape), lanes))
            order[lane::lanes] = tape[start:stop][moved[start:stop].argsort(stable=True)]
            start = stop
        return order

    @cached_property
    def window(self) -> int:
        """The distance that an image may move in its lane, so that a lane has few shards open at a time."""
        sizes, shards = self.index.samples["size"], self.index.shards
        if not len(sizes):
            return 1
        return max(1, min(WINDOW, int(WINDOW_BYTES / sizes.mean()), len(sizes) // len(shards)))

    def portions(self, batch_size: int, sizes: Sequence[int], rank: int, world: int) -> Iterator[Rows]:
        """Yield the rows of process `rank` in the order of the shards: a contiguous part for each process."""
        start, stop = (len(self) * number // world for number in (rank, rank + 1))
        if start < stop:
            yield from torch.arange(start, stop).split(-(-batch_size // world))

    def hold_out(self, labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
        """Return sorted rows (kept, held out), in stretches that are fast to read.

        The shards are shuffled by `seed`, and the last `fraction` of all images is held out, which assumes that the
        images are shuffled over the shards. Raises UsageError unless 0 <= fraction < 1.
        """
        require_fraction(fraction)
        tape = self.tape(torch.Generator().manual_seed(mix_seed(seed)))
        kept = len(tape) - round(len(tape) * fraction)
        return tape[:kept].sort().values, tape[kept:].sort().values

    def stream(self, parts: Iterable[Rows], pin: bool = False) -> Iterator[tuple[Tensor, Rows]]:
        """Yield the readable images of each part, and a mask of the rows that could be read.

        The next parts are read and decoded ahead. Raises DataError for an unreadable image, unless it is skipped.
        """
        for images, kept in self._stream(list(parts)):
            found = images if kept.all() else images[kept]
            yield (found.pin_memory() if pin else found), kept

    def _stream(self, parts: Sequence[Rows]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images of each part, and a mask of those that could be read; the others are uninitialised."""
        if not parts:
            return
        rows = [self.rows[part].numpy() for part in parts]
        contents = _read(self.index, rows, 2 * LANES * self.window)
        read = ahead(lambda _: next(contents), rows, 1, 2)

        def pieces() -> Iterator[_Piece]:
            for part, own in zip(rows, read, strict=True):
                images, kept = np.empty((len(part), *self.canvas), np.uint8), torch.ones(len(part), dtype=torch.bool)
                share = min(CHUNK, -(-len(part) // (2 * self.workers)))
                for numbers in chunks(range(len(part)), share):
                    yield _Piece(part, own, images, kept, numbers)

        for piece in ahead(self._decode, pieces(), self.workers, 4 * self.workers):
            if piece.numbers[-1] + 1 == len(piece.rows):
                yield torch.from_numpy(piece.images).permute(0, 3, 1, 2), piece.kept

    def _decode(self, piece: _Piece) -> _Piece:
        height, width, channels = self.canvas
        for number in piece.numbers:
            content = piece.contents[number]
            try:
                if isinstance(content, str):
                    raise DataError(content)
                piece.images[number] = decode_image(
                    content[HEADER:], channels, (height, width), max_pixels=self.max_pixels
                )
            except DataError as error:
                piece.kept[number] = False
                shard = self.index.shards[self.index.shard_of(piece.rows[number])].place
                self.complain(f"{shard}: {member_name(content)}" if isinstance(content, bytes) else shard, error)
        return piece


def _read(index: ShardIndex, parts: Sequence[np.ndarray], horizon: int) -> Iterator[list[Content]]:
    """Yield the contents of the rows of each part.

    Rows of a shard that are at most `horizon` positions apart are read forwards, and kept until they are needed.
    """
    rows = np.concatenate(parts)
    places = rows.argsort()
    forwards = rows[places]
    breaks = (np.diff(index.shard_of(forwards)) != 0) | (np.abs(np.diff(places)) > horizon)
    runs = np.split(forwards, np.flatnonzero(breaks) + 1)
    run_of = np.empty_like(rows)
    run_of[places] = np.cumsum([0, *breaks])
    readers = [_read_run(index, run) for run in runs]
    kept: dict[int, Content] = {}
    for part, numbers in zip(parts, np.split(run_of, np.cumsum([len(part) for part in parts])), strict=False):
        contents = []
        for row, number in zip(part.tolist(), numbers.tolist(), strict=True):
            while row not in kept:
                kept.update(next(readers[number]))
            contents.append(kept.pop(row))
        yield contents


def _read_run(index: ShardIndex, rows: np.ndarray) -> Iterator[dict[int, Content]]:
    """Yield the contents of rows of one shard, block by block."""
    shard = index.shards[index.shard_of(rows[0])]
    blocks = list(_blocks(index, rows))
    try:
        file = open_bytes(shard.place)
    except DataError as error:
        yield dict.fromkeys(rows.tolist(), str(error))
        return
    with file:
        for block in blocks[:-1]:
            yield _read_block(file, shard, block)
        last = _read_block(file, shard, blocks[-1])
    yield last  # after closing the file, as the generator may not be resumed


class _Span(NamedTuple):
    row: int
    start: int  # of the header, in bytes
    stop: int


def _blocks(index: ShardIndex, rows: np.ndarray) -> Iterator[list[_Span]]:
    """Yield the spans to read at once."""
    samples = index.samples[rows]
    starts = samples["offset"] - HEADER
    stops = samples["offset"] + samples["size"]
    block: list[_Span] = []
    for span in map(_Span, rows.tolist(), starts.tolist(), stops.tolist()):
        if block and (span.stop - block[0].start > BLOCK or span.start - block[-1].stop > GAP):
            yield block
            block = []
        block.append(span)
    yield block


def _read_block(file: ByteFile, shard: Shard, block: list[_Span]) -> dict[int, Content]:
    start = block[0].start
    try:
        content = read_range(file, start, block[-1].stop)
        reason = ""
    except (DataError, OSError) as error:
        reason = str(error)
    if shard.bytes is not None and file.length not in (None, shard.bytes):
        reason = f"it has {file.length:,} bytes, but {shard.bytes:,} in its index: truncated, or another file"
    if reason:
        return dict.fromkeys((span.row for span in block), reason)
    return {span.row: bytes(content[span.start - start : span.stop - start]) for span in block}
