"""Training from weights: of a run, a bundle, a file, or published ones."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import cnnkit
from cnnkit.core.errors import DataError
from cnnkit.data import load_dataset
from cnnkit.experiment import Run
from cnnkit.nets import WEIGHTS, create, pretrained
from cnnkit.nets.weights import give_weights, read_weights_file
from helpers.cli import Cli, one_line
from helpers.images import noise_photos
from helpers.webserver import Raw, answer, drip, raw_server

FLAGS = ["--epochs", 1, "--batch-size", 8, "--plan", "off", "--device", "cpu"]
TINY = ["--image-size", 32, "--model-kwargs.width", 4]


def photos(root: str, classes: tuple[str, ...], count: int = 12, grey: bool = False) -> None:
    noise_photos(root, count, classes, size=(16, 16), mode="L" if grey else "RGB")


@pytest.fixture
def first(cli: Cli) -> str:
    """A run of a small network on four classes."""
    photos("old", ("ant", "bee", "cat", "dog"))
    result = cli("train", "resnet18", "--data", "old", *TINY, *FLAGS)
    assert result.code == 0, result
    return "runs/resnet18-old-1"


def start(cli: Cli, *arguments: Any, lr: str = "1e-30") -> str:
    result = cli("train", *arguments, *FLAGS, "--lr", lr, "--weight-decay", 0)
    assert result.code == 0, result
    return str(result.out)


def test_run_provides_weights_network_size_and_preprocessing(first: str, cli: Cli) -> None:
    photos("new", ("dog", "emu", "ant"))
    out = start(cli, "--weights", first, "--data", "new")
    old, new = cnnkit.load(first), cnnkit.load("runs/resnet18-new-1")
    assert (new.bundle.net, new.bundle.arguments["width"], new.bundle.image_size) == ("resnet18", 4, (32, 32))
    assert (new.bundle.mean, new.bundle.std) == (old.bundle.mean, old.bundle.std)
    ours, theirs = new.net.state_dict(), old.net.state_dict()
    body = [name for name in ours if not name.startswith("head") and "running" not in name and "num_" not in name]
    assert all(ours[name].allclose(theirs[name]) for name in body)
    assert ours["head.weight"][[0, 1]].allclose(theirs["head.weight"][[0, 3]])  # ant and dog, by name
    assert not any(ours["head.weight"][2].allclose(row) for row in theirs["head.weight"])
    assert f"weights from {Path(first).absolute()}: " in out
    total = len(theirs)
    assert f"{total} of {total} tensors loaded" in out
    assert "2 of 3 classes matched by name, the others new" in out
    assert "frozen: 0 values" in out
    shutil.move(first, "elsewhere")
    assert cli("train", "--resume", "runs/resnet18-new-1", "--epochs", 2).code == 0
    assert cnnkit.load("runs/resnet18-new-1").bundle.mean == old.bundle.mean


def test_bundles_files_and_python_provide_weights(first: str, cli: Cli) -> None:
    state = cnnkit.load(first).net.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, "w.safetensors")
    torch.save({"epoch": 1, "model": {f"_orig_mod.module.{name}": value for name, value in state.items()}}, "w.pth")
    photos("new", ("x", "y"))
    for number, place in enumerate((f"{first}/best", "w.safetensors", "w.pth"), 1):
        out = start(cli, "resnet18", *TINY, "--weights", place, "--data", "new", "--freeze", "stem")
        assert f"{len(state) - 2} of {len(state)} tensors loaded" in out
        assert ", 2 skipped; the head is new, for 2 classes" in out
        assert "frozen: 0 values" not in out
        ours = cnnkit.load(f"runs/resnet18-new-{number}").net.state_dict()
        assert ours["conv2.0.body.conv1.weight"].allclose(state["conv2.0.body.conv1.weight"])
    run = cnnkit.fit(data="new", weights=Run(first), epochs=1, progress=False)
    assert (run.config.net, run.config.weights) == ("resnet18", str(Path(first).absolute()))
    Path("run.toml").write_text(f'data = "new"\nweights = "{first}"\nepochs = 1\nbatch_size = 8\n')
    assert cli("train", "--config", "run.toml").code == 0


def test_training_images_of_the_weights_are_not_test_images(first: str, cli: Cli) -> None:
    used = json.loads(Path(first, "split.json").read_text())
    seen = {*used["train"].values(), *used["validation"].values()}
    photos("old", ("ant", "bee", "cat", "dog"), count=20)  # the first twelve of each are those of before
    start(cli, "--weights", first, "--data", "old")
    split = json.loads(Path("runs/resnet18-old-2/split.json").read_text())
    assert len(split["test"]) == 8
    assert seen.isdisjoint(split["test"].values())
    start(cli, "--weights", "runs/resnet18-old-2", "--data", "old")
    third = json.loads(Path("runs/resnet18-old-3/split.json").read_text())
    assert seen <= {*third["trained_before"], *third["chosen_before"]}
    again = json.loads(Path("runs/resnet18-old-2/split.json").read_text())
    assert again["validation"]
    assert set(again["validation"].values()).isdisjoint(used["train"].values())
    photos("parts/train", ("ant", "bee"), count=6)
    shutil.copytree("old/ant", "parts/test/ant")
    shutil.copytree("old/bee", "parts/test/bee")
    out = start(cli, "--weights", first, "--data", "parts")
    assert "test images used for training" in out


def test_grey_images_are_repeated_for_weights_of_three_channels(first: str, cli: Cli) -> None:
    photos("grey", ("ant", "bee", "cat", "dog"), grey=True)
    for path in sorted(Path("grey").rglob("*.png")):
        target = Path("rgb", *path.parts[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as found:
            found.convert("RGB").save(target)
    start(cli, "--weights", first, "--data", "grey")
    model, plain = cnnkit.load("runs/resnet18-grey-1", device="cpu"), cnnkit.load(first, device="cpu")
    assert model.bundle.in_channels == 3
    assert model.net.state_dict()["stem.0.weight"].allclose(plain.net.state_dict()["stem.0.weight"])
    grey, rgb = (load_dataset(root, progress=False, test_fraction=0).train for root in ("grey", "rgb"))
    assert (grey.images.shape[1], rgb.images.shape[1]) == (1, 3)
    prepare = model.preprocess  # what training and evaluating feed, of either
    with torch.no_grad():
        one, other = (model.net(prepare(part.images[:])) for part in (grey, rgb))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    paths = [f"grey/{name}" for name in grey.names]
    torch.testing.assert_close(model.predict(paths, progress=False).logits, one, atol=1e-4, rtol=0)
    assert cli("evaluate", "runs/resnet18-grey-1").code == 0


def test_digits_are_repeated_for_weights_of_three_channels(first: str, cli: Cli) -> None:
    start(cli, "--weights", first, "--data", "digits")
    assert cnnkit.load("runs/resnet18-digits-1").bundle.in_channels == 3
    assert cli("evaluate", "runs/resnet18-digits-1").code == 0


def test_grey_weights_are_adapted_to_colour_images(cli: Cli) -> None:
    photos("grey", ("ant", "bee"), grey=True)
    photos("new", ("ant", "bee"))
    assert cli("train", "resnet18", "--data", "grey", *TINY, *FLAGS).code == 0
    assert "stem.0.weight is adapted from 1 to 3 channels" in start(
        cli, "--weights", "runs/resnet18-grey-1", "--data", "new"
    )


def test_mismatched_weights_are_reported(first: str, cli: Cli) -> None:
    photos("new", ("x", "y"))
    result = cli("train", "lenet", "--weights", first, "--data", "new")
    one_line(result, 2, "has weights of resnet18, not of lenet")
    result = cli(
        "train", "resnet18", "--weights", f"{first}/best/model.safetensors", "--image-size", 32, "--data", "new"
    )
    one_line(result, 3, "stem.0.weight is (4, 3, 7, 7), not (64, 3, 7, 7)", "and")
    torch.save(create("lenet").state_dict(), "lenet.pth")
    result = cli("train", "resnet18", *TINY, "--weights", "lenet.pth", "--data", "new")
    one_line(result, 3, "lenet.pth: lacks stem.0.weight", "has also conv1.0.weight")
    one_line(cli("train", "resnet18", "--weights", "nowhere.pth", "--data", "new"), 3, "no such file")
    one_line(cli("train", "resnet18", "--weights", "new", "--data", "new"), 2, "not a run folder or a bundle")
    result = cli("train", "resnet18.tv", "--weights", first, "--pretrained", "--data", "new")
    one_line(result, 2, "cannot be combined")
    result = cli("train", "--weights", first, "--data", "new", "--init", "he")
    one_line(result, 2, "init 'he' cannot be combined with weights")
    assert not Path("runs/resnet18-new-1").exists()


def test_finetune_recipe_accepts_other_weights(first: str, cli: Cli) -> None:
    photos("new", ("x", "y"))
    result = cli("train", "--recipe", "finetune", "--weights", first, "--data", "new", *FLAGS)
    assert result.code == 0, result


def test_file_in_place_of_download_is_verified(monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "SERVER", "http://127.0.0.1:9/")
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.3")
    file = WEIGHTS["resnet18.tv"].file
    place = tmp_path / "cache" / "weights" / file
    one_line(cli("train", "resnet18.tv", "--weights", "true", *FLAGS), 3, f"or put the file at {place}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"something else")
    found = sha256(b"something else").hexdigest()
    one_line(
        cli("train", "resnet18.tv", "--weights", "true", *FLAGS),
        3,
        f"the weights of resnet18.tv: {place} is another file: its SHA-256 is {found}, not f37072fd",
        "replace it, as the download failed",
    )
    state = create("resnet18.tv").state_dict()
    torch.save(state, place)
    digest = sha256(place.read_bytes()).hexdigest()[:8]
    right = place.with_name(f"resnet18-{digest}.pth")
    place.rename(right)
    monkeypatch.setitem(WEIGHTS, "resnet18.tv", replace(WEIGHTS["resnet18.tv"], file=right.name))
    assert "the head is new, for 10 classes" in start(
        cli, "resnet18.tv", "--weights", "True", "--image-size", 32, "--validation", 0.9
    )
    Path("run.toml").write_text("weights = true\nepochs = 1\nimage_size = 32\nbatch_size = 64\nvalidation = 0.9\n")
    assert cli("train", "resnet18.tv", "--config", "run.toml").code == 0
    bundle = cnnkit.load("runs/resnet18.tv-digits-1").bundle
    assert bundle.mean == WEIGHTS["resnet18.tv"].mean
    out = start(
        cli, "resnet18.tv", "--weights", right, "--image-size", 32, "--validation", 0.9
    )  # the published file, by its name
    assert "the head is new" in out
    assert cnnkit.load("runs/resnet18.tv-digits-3").bundle.mean == WEIGHTS["resnet18.tv"].mean


@pytest.mark.parametrize(
    "wrapper", ["state_dict", "model_state_dict", "model", "net", "ema", "model_ema", "state_dict_ema"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "net."])
def test_wrappers_around_weights_are_removed(wrapper: str, prefix: str, tmp_path: Path) -> None:
    state = create("lenet").state_dict()
    wrapped = {f"{prefix}{name}": value for name, value in state.items()} | {"n_averaged": torch.tensor(3)}
    torch.save({"epoch": 3, wrapper: wrapped}, tmp_path / "w.pt")
    found = read_weights_file(tmp_path / "w.pt")
    assert found.keys() == state.keys()
    net = create("lenet")
    loaded = give_weights(net, found, "w.pt", 10)
    assert (loaded.tensors, loaded.total, loaded.skipped, loaded.changes) == (len(state), len(state), 0, ())
    assert all(net.state_dict()[name].equal(value) for name, value in state.items())


def test_weights_file_loads_into_a_module() -> None:
    photos("new", ("x", "y"))
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5)
    )
    torch.save(net.state_dict(), "own.pth")
    other = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    )
    cnnkit.fit(other, "new", weights="own.pth", lr=1e-30, weight_decay=0, epochs=1, batch_size=8, progress=False)
    assert other[1].weight.allclose(net[1].weight)
    with pytest.raises(DataError, match=r"own.pth: has also 3.weight, 3.bias"):
        cnnkit.fit(torch.nn.Sequential(other[0], torch.nn.Linear(768, 2)), "new", weights="own.pth", progress=False)


# over the net


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Raw]:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.5")
    with raw_server() as raw:
        yield raw


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_weights_load_from_url(
    name: str, server: Raw, cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos("new", ("x", "y"))
    state = create("lenet", in_channels=3).state_dict()
    save_file(state, name) if name == "w.safetensors" else torch.save(state, name)
    content = Path(name).read_bytes()
    server.reply(answer(content))
    url = f"{server.url.replace('://', '://me:secret@')}/a/{name}?download=true"
    result = cli("train", "lenet", "--weights", url, "--data", "new", *FLAGS, "--lr", "1e-30", "--weight-decay", 0)
    assert result.code == 0, result
    shown = url.replace("secret", "***")
    assert f"weights from {shown}: 8 of 10 tensors loaded" in result.out
    [line] = [line for line in caplog.messages if "trusted" in line]
    assert f"so it is trusted as downloaded from {shown}; {name}.sha256 saves {sha256(content).hexdigest()}" in line
    ours = cnnkit.load("runs/lenet-new-1").net.state_dict()
    assert ours["conv1.0.weight"].allclose(state["conv1.0.weight"])
    assert f'weights = "{url}"' in Path("runs/lenet-new-1/config.toml").read_text()
    for file in ("start.json", "environment.json", "log.txt", "best/config.json"):
        assert "secret" not in Path("runs/lenet-new-1", file).read_text()

    server.reply(answer(b"", status="404 Gone"))
    assert cli("train", "-c", "runs/lenet-new-1/config.toml", "--seed", 1).code == 0
    shutil.rmtree(tmp_path / "cache" / "weights")
    assert cli("train", "--resume", "runs/lenet-new-1", "--epochs", 2).code == 0
    assert len(server.asked) == 1
    result = cli("train", "lenet", "--weights", url, "--data", "new", *FLAGS)
    one_line(result, 3, f"{shown}: the server says 404 Gone")


def test_invalid_downloaded_weights_are_not_cached(server: Raw, cli: Cli, tmp_path: Path) -> None:
    photos("new", ("x", "y"))
    server.reply(answer(b"<html>log in first</html>"))
    arguments = ["train", "lenet", "--weights", f"{server.url}/w.pth", "--data", "new", *FLAGS]
    result = cli(*arguments)
    assert result.code == 3
    assert result.err.splitlines()[-1].startswith(f"cnnkit: {server.url}/w.pth: corrupt, or not written by torch.save")
    assert not list((tmp_path / "cache" / "weights").rglob("w.pth*"))
    torch.save(create("lenet", in_channels=3).state_dict(), "w.pth")
    server.reply(answer(Path("w.pth").read_bytes()))
    assert cli(*arguments).code == 0


@pytest.mark.parametrize("name", ["", "..", "a" * 400, "\u00fc [bold].pth", ".hidden.pth", "w.pth.sha256"])
def test_file_names_of_urls_are_safe(name: str, server: Raw, tmp_path: Path) -> None:
    torch.save(create("lenet").state_dict(), "w.pth")
    server.reply(answer(Path("w.pth").read_bytes()))
    path, tensors = pretrained.fetch_weights(f"{server.url}/{name}")
    assert path.parent.parent == tmp_path / "cache" / "weights"
    assert path.parent.name != ".."
    assert "head.bias" in tensors


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/w.pth", "ftp://host/w.pth: only http:// and https:// are supported"),
        ("file:///etc/passwd", "file:///etc/passwd: only http:// and https:// are supported"),
        ("http:///w.pth", "it has no host"),
        ("http://[::1/w.pth", "invalid URL"),
        ("http://host/\udce9.pth", "invalid URL"),
        (f"http://host/{'x' * 5000}\n", "invalid URL"),
        ("http://me:secret@/w.pth", "http://me:***@/w.pth: invalid URL"),
        ("http://host/\x1b[2Jw.pth", "http://host/\\x1b[2Jw.pth: invalid URL: it has unprintable characters"),
    ],
)
def test_invalid_weights_url_is_refused(url: str, words: str, cli: Cli) -> None:
    photos("new", ("x", "y"))
    one_line(cli("train", "lenet", "--weights", url, "--data", "new", *FLAGS), 3, words)


def test_slow_weights_server_is_one_line(server: Raw, cli: Cli) -> None:
    photos("new", ("x", "y"))
    server.reply(lambda _: drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"))
    result = cli("train", "lenet", "--weights", f"{server.url}/w.pth", "--data", "new", *FLAGS)
    one_line(result, 3, f"{server.url}/w.pth: fewer than 1,000 bytes arrived in 0.5 seconds", "tried 4 times")


def test_published_digests_match_the_file_names() -> None:
    known = [name for name, weights in WEIGHTS.items() if len(weights.sha256) == 64]
    assert {"resnet18.tv", "resnet50.tv", "vgg16.tv"} <= set(known)
    assert all(row.sha256.startswith(row.file.removesuffix(".pth")[-8:]) for row in WEIGHTS.values())


# what is wrong with a file


def changed(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return create("lenet").state_dict() | {name.replace("_", "."): value for name, value in changes.items()}


REFUSED: dict[str, tuple[Any, ...]] = {
    "NaN": (changed(head_bias=torch.full((10,), torch.nan)), "NaN or Inf in head.bias"),
    "Inf": (changed(head_weight=torch.full((10, 84), -torch.inf)), "NaN or Inf in head.weight"),
    "too large": (changed(head_bias=torch.full((10,), 1e300, dtype=torch.float64)), "NaN or Inf in head.bias"),
    "integers": (changed(head_bias=torch.zeros(10, dtype=torch.int64)), "head.bias is int64, not float32"),
    "truth": (changed(head_bias=torch.zeros(10, dtype=torch.bool)), "head.bias is bool, not float32"),
    "complex": (changed(head_bias=torch.zeros(10, dtype=torch.complex64)), "head.bias is complex64, not float32"),
    "repeated": (changed(head_bias=torch.ones(1).expand(10**12)), "its tensors repeat the same bytes"),
    "names": ({0: torch.ones(1)}, "it must hold a dictionary of tensors"),
    "a list": ([torch.ones(1)], "it must hold a dictionary of tensors"),
    "no tensors": ({"a": 1, "b": 2, "c": 3, "d": 4}, "these entries are not tensors: a, b, c and 1 more"),
    "a network": (create("lenet"), "not opened, because it could run code (it uses"),
    "another network": (create("lenet_bn").state_dict(), "has also conv1.1.weight"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unsafe_weight_files_are_refused(what: str, cli: Cli) -> None:
    content, words = REFUSED[what]
    torch.save(content, "w.pth")
    result = cli("train", "lenet", "--weights", "w.pth", "--data", "digits", *FLAGS)
    one_line(result, 3, "w.pth: ", words)
    assert "weights_only" not in result.err
    assert "state_dict for" not in result.err
    assert not Path("runs").exists()


def test_weights_path_must_be_a_file(cli: Cli) -> None:
    os.mkfifo("pipe.pth")
    for place in ("pipe.pth", "/dev/zero"):
        result = cli("train", "lenet", "--weights", place, "--data", "digits", *FLAGS)
        one_line(result, 3, f"{place}: cannot be read (not a regular file)")
    header = b"[" * 1000
    Path("w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    result = cli("train", "lenet", "--weights", "w.safetensors", "--data", "digits", *FLAGS)
    one_line(result, 3, "w.safetensors: its header is corrupt")


def test_half_precision_weights_and_counters_load() -> None:
    net = create("lenet_bn")
    given = {name: value.half() if value.is_floating_point() else value for name, value in net.state_dict().items()}
    assert give_weights(net, given, "w.pth", 10).tensors == len(given)


def test_new_head_ignores_the_old_head() -> None:
    net = create("lenet", num_classes=3)
    give_weights(net, changed(head_bias=torch.full((10,), torch.nan)), "w.pth", 3, new_head=True)


def test_weights_file_is_identified_by_its_bytes(tmp_path: Path) -> None:
    state = create("lenet").state_dict()
    save_file(state, tmp_path / "w.pth")
    torch.save(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        assert read_weights_file(tmp_path / name).keys() == state.keys()
