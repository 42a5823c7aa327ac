"""Bundles: loading returns what was saved, and corruption is reported."""

import json
from pathlib import Path

import pytest
import torch

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.deploy import Bundle, Classifier, load, save_bundle
from cnnkit.nets import ZOO, create


def bundle(name: str = "lenet", **changes: object) -> Bundle:
    channels, height, width = ZOO[name].input
    fields = {
        "net": name, "arguments": {}, "in_channels": channels, "image_size": (height, width),
        "classes": tuple("abcdefghij"), "mean": (0.2,), "std": (0.5,), "data": "digits", "data_dir": None,
        "split_sha256": "", "metrics": {"epoch": 1}, "versions": Bundle.current_versions(),
    }  # fmt: skip
    return Bundle(**(fields | changes))


HUGE = 60_000_000  # parameters: hundreds of megabytes, written to the disk and checked


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (ZOO[name].params > HUGE)) for name in sorted(ZOO)]
)
def test_bundle_round_trip_is_exact(name: str, tmp_path: Path) -> None:
    pixels = max(ZOO[name].smallest, 28)
    net, x = create(name, in_channels=1, num_classes=10, image_size=pixels), torch.randn(4, 1, pixels, pixels)
    net(x)
    card = bundle(name, in_channels=1, image_size=(pixels, pixels))
    save_bundle(tmp_path / "best", net.to(memory_format=torch.channels_last), card)
    model = load(tmp_path / "best")
    loaded, description = model.net, model.bundle
    assert not loaded.training
    assert all(net.state_dict()[key].equal(value) for key, value in loaded.state_dict().items())
    torch.testing.assert_close(loaded(x), net.eval()(x), rtol=1e-4, atol=1e-4)
    assert description == card.model_copy(update={"model_sha256": description.model_sha256})
    assert load(tmp_path).bundle == description  # a run folder will do


def test_network_arguments_are_saved(tmp_path: Path) -> None:
    arguments = {"norm": "from_scratch", "decay": 0.5}
    save_bundle(tmp_path / "b", create("lenet_bn", **arguments), bundle("lenet_bn", arguments=arguments))
    net = load(tmp_path / "b").net
    assert net.conv1[1].decay == 0.5


def test_bundle_loads_without_the_run(tmp_path: Path) -> None:
    """Not even if it asks for published weights; and images are prepared as its card says."""
    card = bundle("resnet18.tv", in_channels=1, image_size=(32, 32), arguments={"pretrained": True}, resize=40)
    save_bundle(tmp_path / "b", create("resnet18.tv", in_channels=1, num_classes=10), card)
    loaded = load(tmp_path / "b").bundle
    assert (loaded.preprocess.resize, loaded.preprocess.image_size) == (40, (32, 32))


def test_new_bundle_replaces_the_old_without_leftovers(tmp_path: Path) -> None:
    for epoch in (1, 2):
        save_bundle(tmp_path / "best", create("lenet"), bundle(metrics={"epoch": epoch}))
    assert load(tmp_path / "best").bundle.metrics == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert {path.name for path in (tmp_path / "best").iterdir()} == {"model.safetensors", "config.json"}


def test_old_bundle_exists_until_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where folders cannot trade names in one step, they do in two; a failure in between puts the old one back."""
    save_bundle(tmp_path / "best", create("lenet"), bundle(metrics={"epoch": 1}))
    monkeypatch.setattr("cnnkit.core.files._exchange", lambda one, other: False)
    save_bundle(tmp_path / "best", create("lenet"), bundle(metrics={"epoch": 2}))
    assert load(tmp_path).bundle.metrics == {"epoch": 2}
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(CnnkitError, match="Input/output error"):
        save_bundle(tmp_path / "best", create("lenet"), bundle(metrics={"epoch": 3}))
    assert load(tmp_path).bundle.metrics == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_prediction_is_the_softmax_of_the_preprocessed_image() -> None:
    net = create("lenet").eval()
    image = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    found = Classifier(net, bundle()).predict(image)
    logits = net((image[None] / 255 - 0.2) / 0.5)
    torch.testing.assert_close(found.logits, logits.detach(), rtol=1e-5, atol=1e-6)
    expected = logits.softmax(1)[0].topk(2)
    assert [row["score"] for row in found.to_list(2)[0]] == pytest.approx(expected.values.tolist(), rel=1e-5)
    assert [row["label"] for row in found.to_list(2)[0]] == ["abcdefghij"[i] for i in expected.indices.tolist()]
    assert sum(row["score"] for row in found[0]) == pytest.approx(1)
    with pytest.raises(UsageError, match="top must be at least 1, not 0"):
        found.to_list(0)


def test_non_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"not a run folder or a bundle: it has no config\.json"):
        load(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(UsageError, match="has no finished epoch yet"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "spoil", "reason"),
    [
        ("config.json", lambda text: text[:100], r"config\.json: corrupt \("),
        ("config.json", lambda text: text.replace(b'"net"', b'"nets"'), r"config\.json: corrupt \("),
        ("config.json", lambda text: text.replace(b'"mean"', b'"meme"'), r"config\.json: corrupt \("),
        ("config.json", lambda _: b"\xff\xfe", r"config\.json: corrupt \("),
        ("config.json", lambda text: text.replace(b'"format": 1', b'"format": 2'), r"config\.json: corrupt \("),
        ("config.json", lambda text: text.replace(b'"arguments": {', b'"arguments": {"x": 1'), "cannot be built"),
        ("model.safetensors", lambda data: data[:-1], "its SHA-256 is not the one"),
        ("model.safetensors", lambda data: data[:200] + b"!" + data[201:], "its SHA-256 is not the one"),
        ("model.safetensors", None, "cannot be read"),
    ],
)
def test_corrupt_bundle_is_one_clear_line(tmp_path: Path, file: str, spoil, reason: str) -> None:
    save_bundle(tmp_path / "best", create("lenet"), bundle())
    path = tmp_path / "best" / file
    path.write_bytes(spoil(path.read_bytes())) if spoil else path.unlink()
    with pytest.raises(CnnkitError, match=reason) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_bundle(tmp_path / "best", create("lenet"), bundle())
    config = tmp_path / "best" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"net": "lenet_bn"}))
    with pytest.raises(CnnkitError, match="not the weights of lenet_bn"):
        load(tmp_path)
