"""`cnnkit data pack`: pack a folder of images into tar shards."""

from pathlib import Path

from cnnkit.cli.options import MaxPixels, OnBadImage, Workers
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
    on_bad_image: OnBadImage = "error",
    workers: Workers = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Pack a folder of images into tar shards (WebDataset's format), for storage that is slow with many small files.

    The files are stored unchanged, shuffled over the shards of their split. To train on them: `cnnkit train --data
    OUTPUT`, or the URL of its shards.json.

    Parameters
    ----------
    folder
        Folder of images: CLASS/..., or train/CLASS/... with optional val/ and test/.
    output
        New or empty folder for the shards, shards.json and samples.npy.
    megabytes
        Approximate size of a shard.
    images_per_shard
        Largest number of images in a shard.
    test
        Hold out this share of the images of each class for testing if the folder has no test/.
    seed
        Seed of the shuffling.
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
        complain(f"skipped: {path}: {reason}")
    rows = table(["split", "shards", "images", "MB"])
    for split in dict.fromkeys(shard.split for shard in index.shards):
        own = [shard for shard in index.shards if shard.split == split]
        images, size = sum(shard.images for shard in own), sum(shard.bytes or 0 for shard in own)
        rows.add_row(split, f"{len(own):,}", f"{images:,}", f"{size / 10**6:,.1f}")
    page.print(rows)
    page.say(f"{len(index.classes)} classes; next: cnnkit train NET --data {shell(output)}")
