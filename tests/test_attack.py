"""Thousands of corrupt files, and runs killed at random: each costs at most one clear line.

Takes minutes: `pytest -m slow tests/test_attack.py -s` prints how many of each were refused and how many still read.
"""

import gzip
import io
import json
import random
import shutil
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnkit
from cnnkit.core.errors import CnnkitError
from cnnkit.data import Reading, load_dataset, open_dataset, read_image
from cnnkit.data.idx import read_idx
from cnnkit.experiment.build import build
from cnnkit.experiment.config import resolve
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.train import Trainer
from helpers.cli import Cli
from helpers.datasets import write_set
from helpers.images import encoded, noise_photos, smooth_image
from helpers.processes import finished, kill, start_training
from helpers.training import outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

SECONDS = 20  # that one input may take on a busy machine
KINDS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")


def harmed(content: bytes, draw: random.Random) -> bytes:
    """Return a file with something done to it: cut, lengthened, bits flipped, bytes taken out, blanked or doubled."""
    start = draw.randrange(len(content))
    stop = min(len(content), start + draw.choice((1, 2, 4, 64, 4096)))
    way = draw.randrange(8)
    if way == 0:
        return content[:start]
    if way == 1:
        return content + draw.randbytes(draw.choice((1, 100, 5000)))
    if way == 2:
        return draw.randbytes(draw.choice((0, 1, 7, 600)))
    if way == 3:
        return content[:start] + content[stop:]
    if way == 4:
        return content[:stop] + content[start:]
    middle = {5: bytes(stop - start), 6: b"\xff" * (stop - start)}.get(way)
    if middle is None:  # mostly in the header, where it tells most
        start = min(start, int(draw.expovariate(1 / 40)))
        return content[:start] + bytes([content[start] ^ (1 << draw.randrange(8))]) + content[start + 1 :]
    return content[:start] + middle + content[stop:]


class Score:
    """Counts how inputs end, and prints it: refused in one line, or read as something that is sound."""

    def __init__(self, what: str) -> None:
        self.what, self.ends = what, Counter[str]()

    def attack(self, read: Callable[[], object], context: object) -> None:
        began = time.monotonic()
        try:
            read()
            self.ends["read"] += 1
        except CnnkitError as error:
            words = str(error)
            if len(words.splitlines()) != 1 or len(words) > 3000 or "weights_only" in words:
                raise AssertionError(f"{self.what}: {context}: {words}") from error
            self.ends["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{self.what}: {context}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - began < SECONDS, context

    def told(self, number: int) -> None:
        print(f"\n{self.what}: {number:,} inputs, {dict(self.ends)}")
        assert self.ends.total() == number
        assert self.ends["refused"] > number / 4


def test_corrupt_idx_files_are_refused_or_read() -> None:
    score, draw = Score("IDX"), random.Random(1)
    folder = write_set(Path("idx"), train=60, test=20)
    whole = [path.read_bytes() for path in sorted(folder.iterdir())]
    whole += [gzip.compress(content, mtime=0) for content in whole]
    for number in range(500):
        Path("one").write_bytes(harmed(whole[number % len(whole)], draw))
        score.attack(lambda: read_idx(Path("one")), number)
    score.told(500)


def test_corrupt_images_are_refused_or_read() -> None:
    score, draw = Score("images"), random.Random(2)
    picture = smooth_image(size=(60, 44))
    whole = [encoded(kind, picture) for kind in KINDS]
    whole += [
        encoded("TIFF", picture, compression="tiff_lzw"),
        encoded("JPEG", picture, progressive=True),
        encoded("PNG", picture.convert("P")),
        encoded("PNG", picture.convert("RGBA")),
        encoded("PNG", Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(50, 80))),
        encoded("TIFF", picture.convert("CMYK")),
    ]
    for number in range(700):
        Path("one.img").write_bytes(harmed(whole[number % len(whole)], draw))
        score.attack(lambda: read_image(Path("one.img"), 3, (32, 32)), number)
    score.told(700)


@pytest.fixture
def server() -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=".")) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def test_corrupt_tars_are_refused_or_read(server: str) -> None:
    score, draw = Score("tars"), random.Random(3)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(12):
            for name, content in (
                (f"{number}.png", encoded("PNG", smooth_image(number, (40, 24)))),
                (f"{number}.cls", b"%d" % (number % 2)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    def read(place: str) -> None:
        data = open_dataset(place, Reading(image_size=(16, 16), test_fraction=0.0, progress=False))
        images = [part for part, _ in data.train.storage.stream([torch.arange(len(data.train))])]
        assert len(images[0]) == len(data.train)

    for number in range(200):
        place = f"shard-{number}.tar"
        Path(place).write_bytes(harmed(packed.getvalue(), draw))
        score.attack(partial(read, f"{server}/{place}" if number % 2 else place), number)
        Path(place).unlink()
    print(f"\ntars: 200 inputs, {dict(score.ends)}")
    assert score.ends.total() == 200
    assert score.ends["refused"] > 20


def test_corrupt_bundles_are_refused_or_read(cli: Cli) -> None:
    score, draw = Score("bundles"), random.Random(4)
    assert cli("train", "lenet", "--epochs", 1).code == 0
    best = Path("runs/lenet-digits-1/best")
    whole = {name: (best / name).read_bytes() for name in ("config.json", "model.safetensors")}
    image = Image.fromarray(load_dataset("digits").train.images[0, 0].numpy())

    def read() -> None:
        found = cnnkit.load("bundle", device="cpu").predict(image)
        assert json.loads(json.dumps(found.to_list(3), allow_nan=False))

    def other_value(content: bytes) -> bytes:
        card = json.loads(content)
        name = draw.choice(sorted(card))
        card[name] = draw.choice((None, -1, 0, 10**7, 10**30, 1e300, "x", [], {}, [0, 0], [[1]], True, "\x1b[2J"))
        return json.dumps(card).encode()

    for number in range(200):
        shutil.copytree(best, "bundle", dirs_exist_ok=True)
        name = draw.choice(sorted(whole))
        harm = other_value if name == "config.json" and number % 2 else partial(harmed, draw=draw)
        Path("bundle", name).write_bytes(harm(whole[name]))
        score.attack(read, (number, name))
    score.told(200)


def test_corrupt_checkpoints_are_refused_or_read(cli: Cli) -> None:
    score, draw = Score("checkpoints"), random.Random(5)
    assert cli("train", "lenet", "--epochs", 1, "--keep", 1).code == 0
    folder = RunFolder(Path("runs/lenet-digits-1"))
    whole = folder.checkpoint.read_bytes()
    job = build(resolve(folder.settings()), earlier=folder)

    def read() -> None:
        trainer = Trainer(
            *(job.net, job.training, job.validation, job.config),
            checkpoint=folder.checkpoint,
            save_best=lambda net, record: None,
        )
        trainer.resume()
        assert all(value.isfinite().all() for value in trainer.net.state_dict().values())

    for number in range(500):
        folder.checkpoint.write_bytes(harmed(whole, draw))
        score.attack(read, number)
    score.told(500)


LENET = ("lenet_bn", "--batch-size", 96)
PHOTOS = ("resnet18", "--data", "photos", "--image-size", 16, "--model-kwargs.width", 4)
RUNS = {
    "torch": (1, (*LENET, "--epochs", 30, "--ema", 0.95, "--augment", "flip,crop:1", "--checkpoint-steps", 2)),
    "lanes": (1, (*LENET, "--engine", "lanes", "--epochs", 60, "--augment", "flip", "--checkpoint-steps", 3)),
    "photos": (1, (*PHOTOS, "--epochs", 10, "--batch-size", 16, "--mixup", 0.2, "--checkpoint-steps", 2)),
    "processes": (2, (*LENET, "--epochs", 30, "--sync-bn", "--label-smoothing", 0.1, "--checkpoint-steps", 4)),
}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux' /proc to find all processes")
@pytest.mark.parametrize(("processes", "settings"), RUNS.values(), ids=RUNS)
def test_killed_runs_resume_bit_exact(processes: int, settings: tuple[object, ...]) -> None:
    """Fifteen kills for each kind of run, at any moment of it, also before it has a checkpoint or a folder."""
    noise_photos(count=60)
    words = [str(word) for word in settings]
    began = time.monotonic()
    finished(start_training(processes, *words, "--output", "whole"))
    seconds = time.monotonic() - began
    [whole] = Path("whole").iterdir()
    draw, kills, ends = random.Random(processes), 0, Counter[str]()
    while True:
        runs = [str(path) for path in Path().glob("runs/[!.]*")]
        process = start_training(processes, *(["--resume", *runs] if runs else words))
        if kills == 15:
            finished(process)
            break
        with process as victim:
            time.sleep(draw.uniform(0, 1) * (seconds if kills % 3 else min(seconds, 4)))
            if victim.poll() is None:
                kill(victim.pid)
                kills += 1
                run = next(Path().glob("runs/[!.]*"), None)
                begun = run and next(run.glob("*.ckpt"), None)
                ends["trained" if begun else "only begun" if run else "without a folder"] += 1
        if victim.returncode == 0:
            assert outcome(next(Path().glob("runs/[!.]*"))) == outcome(whole)
            shutil.rmtree("runs")
            ends["done"] += 1
    print(f"\nkills: {kills}, {dict(ends)}")
    [run] = Path().glob("runs/[!.]*")
    assert outcome(run) == outcome(whole)
    assert (run / "best/model.safetensors").read_bytes() == (whole / "best/model.safetensors").read_bytes()
