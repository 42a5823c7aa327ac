"""Malformed bundles: refused in one line, before memory is allocated."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import cnnkit
from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import sha256
from cnnkit.deploy import Bundle, load, save_bundle
from cnnkit.nets import create
from cnnkit.nets.foreign import foreign_name
from cnnkit.nets.zoo import ZOO
from helpers.cli import Cli, one_line


def description(**changes: Any) -> dict[str, Any]:
    """Return what a bundle of LeNet for two classes says."""
    facts: dict[str, Any] = {
        "net": "lenet",
        "arguments": {},
        "in_channels": 1,
        "image_size": (28, 28),
        "classes": ("cat", "dog"),
        "mean": (0.5,),
        "std": (0.25,),
        "data": "digits",
        "data_dir": None,
        "split_sha256": "0",
        "metrics": {},
        "versions": {},
    }
    return facts | changes


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of LeNet."""
    torch.manual_seed(0)
    save_bundle(tmp_path / "run/best", create("lenet", num_classes=2), Bundle(**description()))
    return tmp_path / "run/best"


def change(bundle: Path, **changes: Any) -> None:
    """Let a bundle say something else of itself."""
    place = bundle / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


def spoil(bundle: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change a bundle's weights, and what it says of their bytes."""
    weights = load_file(bundle / "model.safetensors")
    edit(weights)
    save_file(weights, bundle / "model.safetensors")
    change(bundle, model_sha256=sha256(bundle / "model.safetensors"))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no channel": ({"in_channels": 0}, "in_channels"),
    "channels below none": ({"in_channels": -1}, "in_channels"),
    "channels without end": ({"in_channels": 2**70}, "in_channels"),
    "ten million channels": ({"in_channels": 10**7}, "in_channels"),
    "channels in words": ({"in_channels": "1"}, "in_channels"),
    "channels true": ({"in_channels": True}, "in_channels"),
    "four means": ({"mean": [0.1] * 4}, "mean has 4 values for 1 channels"),
    "no mean": ({"mean": []}, "mean"),
    "mean NaN": ({"mean": [float("nan")]}, "mean"),
    "mean huge": ({"mean": [1e300]}, "mean"),
    "mean in words": ({"mean": ["0.5"]}, "mean"),
    "no std": ({"std": []}, "std"),
    "std 0": ({"std": [0]}, "std"),
    "std negative": ({"std": [-0.25]}, "std"),
    "std NaN": ({"std": [float("nan")]}, "std"),
    "std Inf": ({"std": [float("inf")]}, "std"),
    "std denormal": ({"std": [1e-320]}, "std"),
    "resize 0": ({"resize": 0}, "resize"),
    "resize negative": ({"resize": -5}, "resize"),
    "resize huge": ({"resize": 1e30}, "resize"),
    "image of nothing": ({"image_size": [0, 0]}, "image_size"),
    "image of a million": ({"image_size": [10**6, 10**6]}, "image_size"),
    "image of three sides": ({"image_size": [28, 28, 28]}, "image_size"),
    "no class": ({"classes": []}, "classes"),
    "classes twice": ({"classes": ["cat", "cat"]}, "'cat' appears twice"),
    "ten million classes": (
        {"classes": [str(number) for number in range(10**7)]},
        "classes: Tuple must have at most",
    ),
    "classes as numbers": ({"classes": [1, 2]}, "classes"),
    "classes in a word": ({"classes": "cat"}, "classes"),
    "format 2": ({"format": 2}, "format 2"),
    "format in words": ({"format": "1"}, "format '1'"),
    "an unknown net": ({"net": "lenett"}, "did you mean 'lenet'?"),
    "a net of no name": ({"net": 5}, "net"),
    "an unknown argument": ({"arguments": {"depth": 3}}, "cannot be built"),
    "an argument of a wrong type": ({"arguments": {"activation": 5}}, "cannot be built"),
    "an argument that is a list": ({"arguments": {"activation": [1] * 10**5}}, "arguments.activation"),
    "an argument without end": ({"arguments": {"width": 2**40}}, "arguments.width"),
    "arguments in a list": ({"arguments": [1]}, "arguments"),
    "a share of 7": ({"test_fraction": 7}, "test_fraction"),
    "metrics in words": ({"metrics": {"val_loss": "low"}}, "metrics"),
    "versions as numbers": ({"versions": {"torch": 2}}, "versions"),
    "a temperature of 0": ({"temperature": 0.0}, "temperature must be at least 0.01"),
    "something else": ({"warmth": 1}, "warmth"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bundle_description_is_validated(cli: Cli, bundle: Path, name: str) -> None:
    changes, word = WRONG[name]
    change(bundle, **changes)
    result = cli("predict", "run", "x.png")
    one_line(result, 1, "run/best/config.json", word)
    assert len(result.err) < 1_000


@pytest.mark.parametrize("content", ["[" * 20_000, "9" * 5_000, "[]", "3", '"x"', "null", '{"net": {"net":' * 20_000])
def test_description_must_be_an_object(cli: Cli, bundle: Path, content: str) -> None:
    (bundle / "config.json").write_text(content)
    one_line(cli("predict", "run", "x.png"), 1, "run/best/config.json: corrupt (")


HUGE: dict[str, tuple[dict[str, Any], str]] = {  # each would take tens of gigabytes if it were built
    "channels": ({"net": "vgg11", "in_channels": 65_536, "image_size": [8_192, 8_192]}, "conv1.0.weight is"),
    "width": ({"net": "vgg11", "arguments": {"width": 3_000}, "image_size": [224, 224]}, "model.safetensors"),
    "a wider one": ({"net": "resnet18", "arguments": {"width": 10**8}, "image_size": [224, 224]}, "built"),
    "classes": ({"net": "lenet", "classes": [str(number) for number in range(10**6)]}, "head.weight is (2, 84)"),
    "pixels": ({"net": "alexnet", "image_size": [8_000, 8_000]}, "model.safetensors"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "channels" else pytest.mark.slow) for name in HUGE]
)
def test_shapes_are_checked_before_allocation(bundle: Path, name: str) -> None:
    """In a process that may have two gigabytes of address space more than it needs to begin."""
    changes, word = HUGE[name]
    change(bundle, **changes)
    code = (
        "import resource, sys, torch, cnnkit, cnnkit.deploy, cnnkit.nets\n"
        "import torch._dynamo, torch._subclasses\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "most = pages * resource.getpagesize() + 2**31\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try: cnnkit.load(sys.argv[1])\n"
        "except cnnkit.core.errors.CnnkitError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True)
    assert done.stderr == ""
    assert word in done.stdout
    assert done.stdout.count("\n") == 1


LARGE = 30_000_000  # parameters, written to the disk and checked


@pytest.mark.parametrize(
    "name",
    [*(pytest.param(n, marks=[pytest.mark.slow] * (row.params > LARGE)) for n, row in ZOO.items()), "from scratch"],
)
def test_loaded_network_equals_the_saved_one(tmp_path: Path, name: str) -> None:
    """Bits of the answers, strides, modes, and all tensors, those that no file keeps too."""
    arguments = {"norm": "from_scratch"} if name == "from scratch" else {}
    name = "lenet_bn" if arguments else name
    row = ZOO[name]
    size = max(row.smallest, 32)
    torch.manual_seed(1)
    net = create(name, num_classes=3, image_size=size, **arguments)
    facts = {"net": name, "arguments": arguments, "in_channels": row.input[0], "image_size": (size, size)}
    save_bundle(tmp_path, net, Bundle(**description(**facts, classes=("a", "b", "c"))))
    loaded = load(tmp_path, device="cpu").net
    net.eval().to(memory_format=torch.channels_last)
    assert repr(loaded) == repr(net)
    assert not any(module.training for module in loaded.modules())
    for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
        pairs = list(zip(kind(loaded), kind(net), strict=True))
        assert all(a == b and x.equal(y) and x.stride() == y.stride() for (a, x), (b, y) in pairs)
        assert all(x.requires_grad == y.requires_grad for (_, x), (_, y) in pairs)
    x = torch.rand(2, row.input[0], size, size)
    with torch.inference_mode():
        assert loaded(x).equal(net(x))


def test_foreign_network_error_names_the_differences(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    facts = description(net=foreign_name(net), image_size=(8, 8))
    save_bundle(tmp_path, net, Bundle(**facts))
    assert load(tmp_path, net).net is net
    spoil(tmp_path, lambda weights: weights.update({"1.bias": torch.zeros(3), "2.bias": torch.zeros(3)}))
    with pytest.raises(CnnkitError, match=r"has also 2\.bias; 1\.bias is \(3,\), not \(2,\)") as caught:
        load(tmp_path, net)
    assert "state_dict" not in str(caught.value)


SPOILT: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "NaN": (lambda weights: weights["conv2.0.bias"].fill_(float("nan")), "the weights contain NaN: conv2.0.bias"),
    "Inf": (lambda weights: weights["head.weight"][0].fill_(float("inf")), "the weights contain Inf: head.weight"),
    "whole numbers": (lambda weights: weights.update({"head.bias": torch.zeros(2, dtype=torch.int64)}), "torch.int64"),
    "a missing one": (lambda weights: weights.pop("head.bias"), "lacks head.bias"),
    "one of another shape": (lambda weights: weights.update({"head.bias": torch.zeros(3)}), "head.bias is (3,)"),
    "one besides": (lambda weights: weights.update({"tail.bias": torch.zeros(3)}), "has also tail.bias"),
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("verb", ["predict", "evaluate", "features", "filters", "anatomy"])
def test_weights_are_verified_on_load(cli: Cli, bundle: Path, name: str, verb: str) -> None:
    edit, word = SPOILT[name]
    spoil(bundle, edit)
    result = cli(verb, "run/best", *(["x.png"] if verb in ("predict", "features") else []))
    one_line(result, 1, "run/best/model.safetensors: ", word)
    assert result.out == ""


def test_training_refuses_initial_weights_with_nan(cli: Cli, bundle: Path) -> None:
    spoil(bundle, SPOILT["NaN"][0])
    one_line(cli("train", "--weights", bundle, "--epochs", 1), 1, "the weights contain NaN: conv2.0.bias")
    assert not Path("runs").exists()


def test_bundle_files_must_be_regular(cli: Cli, bundle: Path) -> None:
    """A pipe that nobody writes into would be waited for without end."""
    import os

    for name in ("model.safetensors", "config.json"):
        copy = shutil.copytree(bundle, bundle.with_name(f"no-{name}"))
        (copy / name).unlink()
        os.mkfifo(copy / name)
        result = cli("predict", copy, "x.png")
        assert result.code in (1, 2)
        assert result.err.count("\n") == 1


def test_nan_predictions_are_reported(cli: Cli, tmp_path: Path) -> None:
    """The weights are finite, and their products are not."""
    net = create("lenet", num_classes=2, image_size=28, activation="relu")
    for weight in net.parameters():
        nn.init.constant_(weight, 1e25)
    save_bundle(tmp_path / "run", net, Bundle(**description(arguments={"activation": "relu"})))
    cnnkit.data.write_image(Path("one.png"), torch.full((1, 28, 28), 200, dtype=torch.uint8))
    why = "its weights and input are finite, but values overflow in conv2"
    for json_wanted in ([], ["--json"]):
        result = cli("predict", "run", "one.png", *json_wanted)
        one_line(result, 1, "the network returns", "for one.png: ", why)
        assert result.out == ""
    one_line(cli("features", "run", "one.png"), 1, "in conv2: ", why)
    with pytest.raises(CnnkitError, match="for image 0: "):
        load("run").predict(np.full((28, 28), 200, dtype=np.uint8))


def test_evaluation_names_the_image_with_nan_prediction(cli: Cli, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label, value in (("dark", 10), ("light", 200)):
            Path(f"photos/{part}/{label}").mkdir(parents=True)
            for number in range(4):
                image = torch.randint(value, value + 50, (1, 28, 28), dtype=torch.uint8)
                cnnkit.data.write_image(Path(f"photos/{part}/{label}/{number}.png"), image)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    for weight in net.parameters():
        nn.init.constant_(weight, 1e38)
    facts = description(net=foreign_name(net), classes=("dark", "light"), mean=(0.0,), std=(1.0,))
    save_bundle(tmp_path / "run", net, Bundle(**facts))
    with pytest.raises(CnnkitError, match=r"returns Inf for test/dark/0\.png: .* values overflow in 1 \(float32\)"):
        cnnkit.evaluate(tmp_path / "run", "photos", net=net, progress=False)


def test_classifier_mean_and_std_are_checked() -> None:
    made = Bundle(**description()).model_copy(update={"std": (0.0,)})
    model = cnnkit.deploy.Classifier(create("lenet", num_classes=2), made)
    with pytest.raises(CnnkitError, match="check the mean and std of the preprocessing"):
        model.predict(np.zeros((28, 28), dtype=np.uint8))
