"""`cnnkit data show`: a sheet of the images as a network receives them."""

from pathlib import Path

from cnnkit.cli.options import MaxPixels
from cnnkit.core.errors import UsageError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_CANVAS

__all__ = ["show"]

CLASSES, MAX_COUNT = 20, 1000  # on one sheet; in a row
WIDTH, FRAME, GAP = 1440, 6, 16  # pixels: of a row of tiles, of the frame of a tile, between original and changed
PIXELS = 224  # for images of several sizes: the input size of most networks


def show(
    data: str,
    *,
    augment: list[str] | None = None,
    image_size: int | None = None,
    count: int = 16,
    seed: int = 0,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    data_dir: Path | None = None,
    output: Path | None = None,
) -> None:
    """Preview the training images of each class on a contact sheet, as the network receives them.

    Images are shown before normalisation. With --augment, one image of each class is shown beside its augmented
    versions. If there are more than 20 classes, a selection is shown.

    Parameters
    ----------
    data
        Data set: digits (included), fashion-mnist or mnist, a folder of images, or tar shards.
    augment
        Augmentations, applied in order: flip, crop[:PADDING], rrc[:SMALLEST] (random resized crop), jitter[:STRENGTH],
        erase[:PROBABILITY], trivial (TrivialAugment), rand[:OPERATIONS[:MAGNITUDE]] (RandAugment); such as flip,crop:4.
    image_size
        Height and width of the network's input; by default the images' own, or 224 if they differ.
    count
        Number of images in a row, or of augmented versions; more are drawn smaller.
    seed
        Seed of the selection and the augmentation.
    data_dir
        Folder of IDX files; by default search in $CNNKIT_DATA, the cache and /usr/share/datasets, then download.
    output
        Output file; by default NAME-show.png in the current folder, with the name of the data.
    """
    import torch
    import torch.nn.functional as F

    from cnnkit.cli.console import complain, console
    from cnnkit.core import shape
    from cnnkit.core.text import counted, shell
    from cnnkit.data import Preprocess, load_dataset, resize_with_pad, write_image
    from cnnkit.data.augment.batch import Augment, parse
    from cnnkit.figures import contact_sheet, stack_sheets

    shape.count(count, "count", MAX_COUNT)
    pixels = shape.count(PIXELS if image_size is None else image_size, "image_size", MAX_CANVAS)
    if image_size and count * pixels**2 > DEFAULT_MAX_PIXELS:
        raise UsageError(f"{count} images of {shape.by(pixels, pixels)} pixels are too many for a row: reduce --count")
    if not 0 <= seed < 2**31:
        raise UsageError(f"seed must be 0 to 2147483647, not {seed}")
    names = parse(augment or ())
    Augment(names, (pixels, pixels))  # raises for a wrong name before images are read
    dataset = load_dataset(data, data_dir, image_size=(pixels, pixels), on_bad_image="skip", max_pixels=max_pixels)
    for remark in dataset.remarks:
        complain(remark)
    train, classes = dataset.train, dataset.classes
    size = (pixels, pixels) if image_size else (train.images.shape[2], train.images.shape[3])
    change, preprocess = Augment(names, size), Preprocess(size)
    draw = torch.Generator().manual_seed(seed)
    largest = max(WIDTH // count - FRAME, 1)

    def tiles(images: torch.Tensor) -> torch.Tensor:
        seen = preprocess(images)
        seen = resize_with_pad(seen, (largest, largest)) if max(size) > largest else seen
        return contact_sheet((seen * 255).round().byte(), tile=min(largest, 64))

    sheets = {}
    for label in range(0, len(classes), -(-len(classes) // CLASSES)):
        members = (train.labels == label).nonzero().flatten()
        rows = members[torch.randperm(len(members), generator=draw)[: 1 if names else count]]
        sheet = tiles(train.images[rows])
        title = f"{classes[label]}: {counted(len(members), 'image')}"
        if names:
            many = train.images[rows].expand(count, -1, -1, -1)
            changed = tiles(change(many, torch.rand(count, change.numbers, generator=draw)))
            below = changed.shape[1] - sheet.shape[1]
            sheet = torch.cat([F.pad(sheet, (0, GAP, 0, below), value=255), changed], 2)
            title += f", {train.names[int(rows)]}" if train.names else ""
        sheets[title] = sheet
    target = output or Path(f"{Path(data).resolve().name}-show.png")
    write_image(target, stack_sheets(sheets))
    line = f"{target}: {len(sheets)} of {len(classes)} classes, {shape.by(*size)}"
    tiled = (
        f"one image and {count} augmented versions ({', '.join(names)})"
        if names
        else f"up to {counted(count, 'image')}"
    )
    line += f", for each class {tiled}"
    line += f"; {len(dataset.skipped):,} unreadable: cnnkit data check {shell(data)}" if dataset.skipped else ""
    console.say(line)
