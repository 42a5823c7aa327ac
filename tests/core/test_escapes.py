"""No verb lets a control character of a name out of files, archives, shards and folders reach the terminal."""

import io
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.cli import Cli
from helpers.images import noise_png
from helpers.measured import RUN

EVIL = "x\x1b[2J\x9b31m\r[red]\u202e"
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture
def check(cli: Cli) -> Callable[..., str]:
    """Run a verb and look for raw control characters in all that it prints."""

    def run(*arguments: object, codes: tuple[int, ...] = (0,)) -> str:
        result = cli(*arguments)
        assert result.code in codes, result
        for text in (result.out, result.err):
            assert not RAW.search(text), RAW.findall(text)
        return result.out + result.err

    return run


def test_every_verb_escapes_names(check: Callable[..., str]) -> None:
    root = Path(f"data {EVIL}")
    for number in range(16):
        folder = root / (EVIL, "other")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}{EVIL}.png").write_bytes(noise_png(number))
    (root / EVIL / f"bad{EVIL}.png").write_bytes(b"no image")
    (root / f"table{EVIL}.txt").write_text("x")
    out = Path(f"runs {EVIL}")
    settings = ("--image-size", 28, "--epochs", 1, "--batch-size", 8, "--on-bad-image", "skip")
    check("data", "check", root, codes=(3,))
    check("data", "check", root, "--json", codes=(3,))
    check("data", "show", root, "--image-size", 28, "--output", f"sheet{EVIL}.png")
    check("data", "pack", root, f"shards {EVIL}", codes=(3,))
    check("data", "pack", root, f"shards {EVIL}", "--on-bad-image", "skip")
    check("train", "lenet", "--data", root, "--image-size", 28, codes=(3,))
    check("train", "lenet", "--data", root, *settings, "--output", out)
    (run,) = (path for path in out.iterdir() if path.is_dir())
    evil = out / f"run {EVIL}"
    run.rename(evil)
    image = next((root / "other").iterdir())
    for words in (
        ("evaluate", evil),
        ("evaluate", evil, "--json"),
        ("evaluate", evil, "--data", root, "--on-bad-image", "skip"),
        ("predict", evil, root),
        ("predict", evil, root, "--json"),
        ("predict", evil, image, "--output", f"found {EVIL}.csv"),
        ("runs", out),
        ("runs", out, "--json"),
        ("plot", evil, "--output", f"curves {EVIL}.svg"),
        ("plot", evil),
        ("anatomy", evil),
        ("anatomy", evil, "--csv"),
        ("anatomy", evil, "--markdown"),
        ("anatomy", evil, "--json"),
        ("draw", evil, "--output", f"net {EVIL}.svg"),
        ("features", evil, image),
        ("filters", evil),
        ("filter", image, "--kernel", "blur"),
        ("nets", EVIL),
        ("recipes", EVIL),
        ("lr-find", "lenet", "--data", root, "--image-size", 28, "--on-bad-image", "skip", "--steps", 20),
        ("train", "--resume", evil),
        ("train", "lenet", "-c", f"no {EVIL}.toml"),
        ("predict", f"no {EVIL}", image),
        ("data", "pack", f"no {EVIL}", f"out {EVIL}"),
        ("data", "show", f"no/{EVIL}"),
        ("bench", EVIL),
        (EVIL,),
        ("predict", RUN, f"no {EVIL}.png", f"--{EVIL}"),
    ):
        check(*words, codes=(0, 1, 2, 3))


def test_members_of_archives_and_shards_and_labels_are_escaped(check: Callable[..., str]) -> None:
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.writestr(f"cat/{EVIL}.png", b"no image")
        archive.writestr("dog/a.png", noise_png(1))
    assert r"\x1b[2J" in check("train", "lenet", "--data", "evil.zip", "--image-size", 28, codes=(3,))
    with zipfile.ZipFile("out.zip", "w") as archive:
        archive.writestr(f"../{EVIL}.png", b"x")
    check("train", "lenet", "--data", "out.zip", codes=(3,))
    for bad in (False, True):
        with tarfile.open("x-0.tar", "w") as tar:
            for number in range(12):
                for suffix, content in (("png", noise_png(number)), ("cls", (EVIL, "b")[number % 2].encode())):
                    info = tarfile.TarInfo(f"{number}{EVIL}.{suffix}")
                    content = b"no image" if bad and suffix == "png" else content
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        shutil.rmtree("cache", ignore_errors=True)
        check("train", "lenet", "--data", "x-0.tar", "--image-size", 28, "--epochs", 1, codes=((0,), (3,))[bad])
    Path("list.csv").write_text(f"path,label\n{EVIL[:3]}.png,{EVIL[:5]}\n")
    check("train", "lenet", "--data", "list.csv", codes=(3,))
