"""The `.tv` rows against torchvision's facts and outputs (tools/torchvision_reference.py), and published weights."""

import hashlib
import http.server
import json
import pickle
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cnnkit.anatomy import trace
from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.deploy import load, published_preprocess
from cnnkit.nets import WEIGHTS, ZOO, create, pretrained
from cnnkit.nets.pretrained import torchvision_names
from helpers.cli import ROOT, Cli
from helpers.images import shape_photos

GOLDENS = ROOT / "tests" / "goldens"
GOLDEN = json.loads((GOLDENS / "torchvision.json").read_text())
FACTS = GOLDEN["networks"]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
QUICK = ["alexnet", "vgg11_bn", "googlenet", "resnet18", "resnet50", "densenet121"]  # each wiring once

State = dict[str, Tensor]
every = pytest.mark.parametrize("name", FACTS)


def published_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Read the golden: each network's keys and shapes in torchvision's order."""
    networks: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in (GOLDENS / "torchvision.txt").read_text().splitlines():
        layer, *words = line.split(" ")
        if layer == "#":
            shapes = networks[words[0]] = {}
        elif words[0] == "norm":
            shapes |= {f"{layer}.{leaf}": (int(words[1]),) if "num" not in leaf else () for leaf in BATCH_NORM}
        else:
            shapes |= {
                f"{layer}.{leaf}": tuple(map(int, shape.split("x")))
                for leaf, shape in zip(words[::2], words[1::2], strict=True)
            }
    return networks


SHAPES = published_shapes()


def seeded(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the values that the reference gave to this tensor."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if len(shape) > 1:
        reach = (3 / np.prod(shape[1:])) ** 0.5
        return torch.from_numpy(random.uniform(-reach, reach, shape).astype(np.float32))
    low, high = (-0.5, 0.5) if name.endswith(("bias", "mean")) else (0.5, 2)
    return torch.from_numpy(np.asarray(random.uniform(low, high, shape), np.float32))


def weights(name: str) -> State:
    """Make the reference's weights under torchvision's keys."""
    return {key: seeded(key, shape) if shape else torch.tensor(0) for key, shape in SHAPES[name].items()}


def as_published(name: str, state: State) -> State:
    """Bring the weights into the forms of published files: another order, older spellings, more and fewer keys."""
    if name.startswith("densenet"):
        state = {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", key): value for key, value in state.items()}
    if name == "googlenet":
        state |= {"aux1.conv.conv.weight": torch.zeros(128, 512, 1, 1), "aux2.fc2.bias": torch.zeros(1000)}
    return {key: state[key] for key in sorted(state, reverse=True) if not key.endswith("num_batches_tracked")}


@every
def test_the_same_tensors_in_the_same_order(name: str) -> None:
    with torch.device("meta"):
        net = create(f"{name}.tv")
    theirs = torchvision_names(net, f"{name}.tv")
    ours = {
        f"{theirs[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tuple(value.shape)
        for key, value in net.state_dict().items()
    }
    assert list(ours.items()) == list(SHAPES[name].items())


@every
def test_the_published_counts(name: str) -> None:
    with torch.device("meta"):
        net = create(f"{name}.tv")
    parts, row = trace(net, (3, 224, 224)), ZOO[f"{name}.tv"]
    assert row.published
    assert parts.params == row.published.params == FACTS[name]["params"]
    assert round(parts.macs / 1e9, 3) == (row.published.macs or 0) / 1e9 == FACTS[name]["gmacs"]
    assert row.smallest == FACTS[name]["smallest"]


@every
def test_what_is_known_of_the_weights(name: str) -> None:
    known, fact = WEIGHTS[f"{name}.tv"], FACTS[name]
    assert (known.file, known.top1, known.resize, known.crop) == tuple(
        fact[key] for key in ("file", "top1", "resize", "crop")
    )
    mean, std = (torch.tensor(values) for values in (fact["mean"], fact["std"]))
    pixel = torch.tensor([0.1, 0.5, 0.8])
    theirs = (pixel - mean) / std
    if name == "googlenet":  # torchvision turns its usual input into the original's inside the network
        theirs = theirs * (std / 0.5) + (mean - 0.5) / 0.5
    torch.testing.assert_close((pixel - torch.tensor(known.mean)) / torch.tensor(known.std), theirs)


def test_every_twin_has_weights_and_facts() -> None:
    twins = {name for name in ZOO if name.endswith(".tv")}
    assert twins == set(WEIGHTS) == {f"{name}.tv" for name in FACTS}
    assert {name for name in ZOO if ZOO[name].source == "torchvision"} == twins


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FACTS]
)
def test_published_files_load_and_answer_as_in_torchvision(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(as_published(name, weights(name)), path)
    net = create(name if name in ("resnet50", "densenet121", "vgg11_bn") else f"{name}.tv", pretrained=path).eval()
    path.unlink()
    pixels = GOLDEN["pixels"]
    with torch.no_grad():
        logits = net(seeded("image", (1, 3, pixels, pixels)) * 100)[0, ::100]
    expected = torch.tensor(FACTS[name]["logits"])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve what lies in tmp_path/served in the place of the publisher; the value lists what was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    (tmp_path / "served").mkdir()
    handler = partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        monkeypatch.setattr(pretrained, "SERVER", f"http://127.0.0.1:{http_server.server_port}/")
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield asked
        http_server.shutdown()
        thread.join()


def serve(folder: Path, state: State, monkeypatch: pytest.MonkeyPatch, digest: str = "") -> str:
    """Put a file for resnet18 there under its name with its hash; return the name."""
    torch.save(state, folder / "new.pth")
    digest = digest or hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    file = f"resnet18-{digest}.pth"
    (folder / "new.pth").rename(folder / file)
    monkeypatch.setitem(WEIGHTS, "resnet18.tv", replace(WEIGHTS["resnet18.tv"], file=file))
    return file


def test_download_once_check_and_load(server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = weights("resnet18")
    file = serve(tmp_path / "served", state, monkeypatch)
    for _ in range(2):
        net = create("resnet18.tv", pretrained=True)
        assert net.state_dict()["conv5.1.body.conv2.weight"].equal(state["layer4.1.conv2.weight"])
    assert server == [f"/{file}"]
    assert (tmp_path / "cache" / "weights" / file).is_file()


def test_a_download_with_another_hash_is_refused(
    server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path / "served", {"conv1.weight": torch.zeros(1)}, monkeypatch, digest="00000000")
    with pytest.raises(DataError, match=r"resnet18-00000000\.pth: sent other data: its SHA-256 is .*, not 00000000"):
        create("resnet18.tv", pretrained=True)
    assert not list((tmp_path / "cache" / "weights").glob("*.pth"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_channels_adapt_the_first_convolution(channels: int, tmp_path: Path) -> None:
    state = weights("resnet18")
    torch.save(state, tmp_path / "weights.pth")
    net = create("resnet18.tv", in_channels=channels, pretrained=tmp_path / "weights.pth")
    three, own = state["conv1.weight"], net.state_dict()["stem.0.weight"]
    expected = {
        1: three.sum(1, keepdim=True),
        3: three,
        4: three[:, [0, 1, 2, 0]] * 0.75,
    }
    torch.testing.assert_close(own, expected[channels])
    grey = torch.ones(1, 1, 32, 32)
    if channels == 1:  # a grey picture means to one channel what its copies mean to three
        full = create("resnet18.tv", pretrained=tmp_path / "weights.pth").eval()
        torch.testing.assert_close(net.eval()(grey), full(grey.expand(1, 3, 32, 32)), rtol=1e-3, atol=1e-3)


def test_other_classes_keep_their_own_new_head(tmp_path: Path) -> None:
    state = weights("resnet18")
    torch.save(state, tmp_path / "weights.pth")
    torch.manual_seed(5)
    fresh = create("resnet18.tv", num_classes=5)
    torch.manual_seed(5)
    net = create("resnet18.tv", num_classes=5, pretrained=tmp_path / "weights.pth")
    assert net[-1].weight.equal(fresh[-1].weight)
    assert net[-1].bias.equal(fresh[-1].bias)
    assert net.state_dict()["conv2.0.body.conv1.weight"].equal(state["layer1.0.conv1.weight"])


@pytest.mark.parametrize("wrapped", ["state_dict", "model"])
def test_checkpoints_of_training_scripts_load_too(wrapped: str, tmp_path: Path) -> None:
    state = weights("resnet18")
    parallel = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, wrapped: parallel}, tmp_path / "checkpoint.pth")
    net = create("resnet18.tv", pretrained=tmp_path / "checkpoint.pth")
    assert net.state_dict()["conv4.1.body.conv1.weight"].equal(state["layer3.1.conv1.weight"])


def test_files_with_our_own_keys_and_safetensors_load_too(tmp_path: Path) -> None:
    net = create("lenet")
    torch.save(net.state_dict(), tmp_path / "lenet.pth")
    save_file(weights("resnet18"), tmp_path / "resnet18.safetensors")
    x = torch.randn(2, 1, 28, 28)
    assert create("lenet", pretrained=str(tmp_path / "lenet.pth"))(x).equal(net(x))
    loaded = create("resnet18.tv", pretrained=tmp_path / "resnet18.safetensors")
    assert loaded[-1].bias.equal(seeded("fc.bias", (1000,)))


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("sprung"),)  # type: ignore[return-value]


def trap(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap()))


def cut(path: Path) -> None:
    torch.save(weights("resnet18"), path)
    path.write_bytes(path.read_bytes()[:10_000])


def without_a_layer(path: Path) -> None:
    torch.save({key: value for key, value in weights("resnet18").items() if "layer3.0" not in key}, path)


def changed(path: Path, key: str, value: Tensor) -> None:
    torch.save(weights("resnet18") | {key: value}, path)


def another_width(path: Path) -> None:
    changed(path, "layer1.0.conv2.weight", torch.zeros(64, 32, 3, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file of weights"),
        (lambda path: path.mkdir(), "a folder; name the file of weights in it"),
        (lambda path: torch.save(create("lenet"), path), r"could run code .*Sequential\); save net\.state_dict\(\)"),
        (lambda path: path.write_text("hello"), r"weights\.pth: corrupt, or not written by torch\.save"),
        (lambda path: torch.save([1], path), "must hold tensors by name"),
        (trap, "not opened, because it could run code"),
        (cut, r"weights\.pth: cut short, or corrupt"),
        (without_a_layer, r"not the weights of resnet18\.tv: lacks conv4\.0\.body\.conv1\.weight, .* and \d+ more"),
        (lambda path: torch.save({0: torch.zeros(1)}, path), "must hold tensors by name"),
        (lambda path: changed(path, "fc.bias", torch.tensor(1.0)), r"head\.bias is \(\), not \(1000,\)"),
        (lambda path: changed(path, "fc.bias", torch.zeros(5)), r"head\.bias is \(5,\), .*give num_classes"),
        (lambda path: changed(path, "conv1.weight", torch.zeros(64)), r"stem\.0\.weight is \(64,\)"),
        (lambda path: changed(path, "conv1.weight", torch.zeros(64, 0, 7, 7)), r"stem\.0\.weight is \(64, 0, 7, 7\)"),
        (another_width, r"conv2\.0\.body\.conv2\.weight is \(64, 32, 3, 3\), not \(64, 64, 3, 3\)"),
        (lambda path: torch.save(create("lenet").state_dict(), path), r"has also conv1\.0\.weight"),
    ],
)
def test_files_that_cannot_serve(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(DataError, match=message):
        create("resnet18.tv", pretrained=path)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet"])
def test_weights_go_into_heads_as_the_chapter_writes_them(name: str, tmp_path: Path) -> None:
    state = weights(name)
    torch.save(state, tmp_path / "weights.pth")
    net = create(f"{name}.tv", head="as_written", pretrained=tmp_path / "weights.pth")
    assert [*net[-1].parameters()][1].equal(state["classifier.bias" if name == "densenet121" else "fc.bias"])


def test_an_empty_path_is_not_no_path() -> None:
    with pytest.raises(DataError, match=r"^\.: a folder"):
        create("lenet", pretrained="")


def test_a_network_without_published_weights_says_so() -> None:
    with pytest.raises(UsageError, match=r"^lenet has no published weights; those that have: alexnet\.tv"):
        create("lenet", pretrained=True)


@pytest.mark.parametrize(("channels", "mean"), [(3, (0.485, 0.456, 0.406)), (1, (0.449,))])
def test_images_are_prepared_as_published(channels: int, mean: tuple[float, ...]) -> None:
    prepare = published_preprocess("resnet50", channels)
    assert (prepare.image_size, prepare.resize) == ((224, 224), 232)
    assert prepare.mean == pytest.approx(mean)
    assert published_preprocess("googlenet.tv").mean == (0.5, 0.5, 0.5)
    with pytest.raises(UsageError, match="lenet has no published weights"):
        published_preprocess("lenet")


def test_training_goes_on_from_published_weights(
    server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    state = weights("resnet18") | {"fc.weight": torch.zeros(1000, 512)}
    file = serve(tmp_path / "served", state, monkeypatch)
    train = ["train", "resnet18.tv", "--pretrained", "--image-size", 32, "--epochs", 1, "--lr", "1e-30"]
    assert cli(*train).code == 0
    model = load(tmp_path / "runs" / "resnet18.tv-digits-1")
    net, bundle = model.net, model.bundle
    assert net.state_dict()["conv3.0.shortcut.0.weight"].equal(state["layer2.0.downsample.0.weight"])
    assert net.state_dict()["stem.0.weight"].allclose(
        state["conv1.weight"]
    )  # the digits are repeated as three channels
    assert bundle.mean == pytest.approx((0.485, 0.456, 0.406))
    (tmp_path / "cache" / "weights" / file).rename(tmp_path / "away")
    assert cli("train", "--resume", "runs/resnet18.tv-digits-1").code == 0  # its weights are in its checkpoint
    (tmp_path / "away").rename(tmp_path / "cache" / "weights" / file)
    assert cli("train", "resnet18.tv", "--pretrained", "--epochs", 1, "--image-size", 32, "--init", "glorot").code == 2
    assert server == [f"/{file}"]
    picture = ROOT / "examples" / "digits" / "1792-is-9.png"
    assert "resnet18.tv with published weights" in cli("features", "resnet18.tv", picture, "--pretrained").out
    assert "64 of 64 filters of resnet18.tv with published" in cli("filters", "resnet18.tv", "--pretrained").out
    assert cli("train", "resnet18.tv", "--pretrained", "--raw-pixels").code == 2
    result = cli("filters", "runs/resnet18.tv-digits-1", "--pretrained")
    assert (result.code, "has weights of its own" in result.err) == (2, True)
    result = cli("train", "lenet", "--pretrained")
    assert (result.code, "lenet has no published weights" in result.err) == (2, True)


def test_fine_tuning_moves_the_head_and_hardly_the_body_and_nothing_that_is_frozen(
    server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    state = weights("resnet18")
    serve(tmp_path / "served", state, monkeypatch)
    shape_photos(tmp_path / "photos", 8)
    train = ("train", "resnet18.tv", "--recipe", "finetune", "--data", "photos", "--image-size", 32, "--epochs", 2)
    result = cli(*train, "--batch-size", 10, "--freeze", "stem", "conv2", "--ema", 0.5)
    assert result.code == 0, result.err
    [checkpoint] = (torch.load("runs/resnet18.tv-photos-1/last.ckpt", weights_only=True)["stepper"]["net"],)
    assert checkpoint["stem.0.weight"].equal(state["conv1.weight"])
    assert checkpoint["stem.1.running_mean"].equal(state["bn1.running_mean"])
    body = (checkpoint["conv5.1.body.conv2.weight"] - state["layer4.1.conv2.weight"]).abs().max()
    assert 0 < body < 0.01
    assert checkpoint["head.weight"].shape == (3, 512)


def test_nothing_is_downloaded_unless_asked() -> None:
    with pytest.raises(CnnkitError, match=r"download\.pytorch\.org"):  # the tests' proxy answers nobody
        create("resnet18.tv", pretrained=True)
    assert create("resnet18.tv", num_classes=2)
