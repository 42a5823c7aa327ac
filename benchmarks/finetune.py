"""Fine-tuning against training from scratch on a few photographs of classes that a network has not seen.

    python benchmarks/finetune.py --photos DIR [--net resnet18] [--seeds 3]

DIR is a folder of photographs, flat or with train/ and val/, of ten classes or more. A network is trained on all images
of the first six; then, for each seed, it is trained with `--weights` of that run on ten images of each of four other
classes, and the same network from random weights on the same ten, with the same settings. Both are measured on all
other images of the four classes, which neither has seen. The best epoch is chosen by two of each ten. Results go to
benchmarks/results/ as JSON.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

from _lib.report import RESULTS, write

import cnnkit
from cnnkit.data import scan_folder

FIRST, OTHERS, SHOTS = 6, 4, 10
PRETRAINING = {"epochs": 40, "batch_size": 32, "augment": ["flip", "rrc:0.35"], "lr": 0.003}
WAYS: dict[str, dict[str, Any]] = {  # both get as many steps
    "from scratch": {"epochs": 60, "batch_size": 8, "augment": ["flip", "rrc:0.35"], "lr": 0.003},
    "fine-tuned, all layers alike": {"epochs": 60, "batch_size": 8, "augment": ["flip", "rrc:0.35"], "lr": 0.003},
    "fine-tuned, the body at a tenth": {
        "epochs": 60,
        "batch_size": 8,
        "augment": ["flip", "rrc:0.35"],
        "lr": 0.003,
        "stage_lr": {"*": 0.1, "head": 1.0},
    },
}


def images_of(root: Path) -> dict[str, list[Path]]:
    """Return the images of each class, of all splits of the folder."""
    folder = scan_folder(root)
    found: dict[str, list[Path]] = {name: [] for name in folder.classes}
    for split in folder.splits.values():
        for path, label in zip(*split, strict=True):
            found[folder.classes[label]].append(root / path)
    return found


def link(images: dict[str, list[Path]], root: Path) -> Path:
    """Make a folder of links to the images of each class."""
    for name, paths in images.items():
        (root / name).mkdir(parents=True)
        for number, path in enumerate(paths):
            (root / name / f"{number:05}{path.suffix}").symlink_to(path.resolve())
    return root


def main() -> None:
    """Train and measure all variants, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    images = images_of(options.photos)
    names = sorted(images, key=lambda name: (-len(images[name]), name))
    first, others = names[:FIRST], names[FIRST : FIRST + OTHERS]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        how = {"image_size": options.image_size, "output": place / "runs", "progress": False}
        own = {"net": options.net, "model_kwargs": {"width": options.width}}
        base = cnnkit.fit(data=link({n: images[n] for n in first}, place / "six"), **own, **how, **PRETRAINING)
        pretrained = base.evaluate(progress=False).accuracy
        rows: dict[str, list[float]] = {way: [] for way in WAYS}
        for seed in range(options.seeds):
            draw = random.Random(seed)
            few: dict[str, list[Path]] = {}
            rest: dict[str, list[Path]] = {}
            for name in others:
                shuffled = draw.sample(images[name], len(images[name]))
                few[name], rest[name] = shuffled[:SHOTS], shuffled[SHOTS:]
            train = link(few, place / f"few-{seed}")
            (place / f"data-{seed}").mkdir()
            (place / f"data-{seed}" / "train").symlink_to(train)
            link(rest, place / f"data-{seed}" / "test")
            for way, settings in WAYS.items():
                start = own if way == "from scratch" else {"weights": base}
                run = cnnkit.fit(data=place / f"data-{seed}", seed=seed, validation=0.2, **start, **how, **settings)
                report = run.evaluate(progress=False)
                rows[way].append(report.accuracy)
                print(f"seed {seed}: {way}: {report.accuracy:.4f} on {report.num_images} images", flush=True)
    total = sum(len(images[name]) for name in first)
    measured = sum(len(images[name]) - SHOTS for name in others)
    write(
        options.output,
        "finetune",
        f"{options.net}, width {options.width}, at {options.image_size} pixels; trained first on {total:,} images of "
        f"{', '.join(first)} (test accuracy {pretrained:.3f}), then on {SHOTS} of each of {', '.join(others)}, and "
        f"measured on the other {measured:,} images of these; {options.seeds} seeds draw the images",
        {"accuracy": rows, "first": pretrained, "classes": [first, others]},
    )


if __name__ == "__main__":
    main()
