"""`cnnkit data pack`: a folder of pictures as tar shards."""

from pathlib import Path
from typing import Literal

from cnnkit.core.limits import DEFAULT_MAX_PIXELS

__all__ = ["pack"]


def pack(
    folder: Path,
    output: Path,
    *,
    megabytes: int = 100,
    images_per_shard: int | None = None,
    test: float = 0.1,
    seed: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> None:
    """Pack a folder of pictures into tar shards (WebDataset's format), for disks and servers that dislike many files.

    The files stay as they are, shuffled over the shards of their split. Train on them with --data OUTPUT, or with the
    URL of its shards.json.

    Parameters
    ----------
    folder
        CLASS/..., or train/CLASS/... and, where there are, val/CLASS/... and test/CLASS/....
    output
        A new or empty folder for the shards, shards.json and samples.npy.
    megabytes
        About the size of a shard.
    images_per_shard
        Pictures in a shard, at most.
    test
        Share of the pictures, of each class, that becomes the test set if the folder has no test/.
    seed
        Another seed shuffles in another way.
    on_bad_image
        What to do about a picture that cannot be read: stop, or leave it out and say so.
    workers
        Threads that look at pictures; without it, one for each processor.
    max_pixels
        The most pixels that an image may be decoded to; a larger one cannot be read.
    """
    from cnnkit.cli.console import complain, page, table
    from cnnkit.core.text import shell
    from cnnkit.data.shards.pack import pack_folder

    index = pack_folder(
        folder,
        output,
        megabytes=megabytes,
        images_per_shard=images_per_shard,
        test_fraction=test,
        seed=seed,
        on_bad_image=on_bad_image,
        workers=workers,
        max_pixels=max_pixels,
    )
    for path, reason in index.problems:
        complain(f"left out: {path}: {reason}")
    rows = table(["split", "shards", "pictures", "MB"])
    for split in dict.fromkeys(shard.split for shard in index.shards):
        own = [shard for shard in index.shards if shard.split == split]
        images, size = sum(shard.images for shard in own), sum(shard.bytes or 0 for shard in own)
        rows.add_row(split, f"{len(own):,}", f"{images:,}", f"{size / 10**6:,.1f}")
    page.print(rows)
    page.say(f"{len(index.classes)} classes; next: cnnkit train NET --data {shell(output)}")
