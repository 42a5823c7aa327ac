"""Write torchvision's published facts about its networks, and their outputs, for the tests to compare with.

    pip install --no-deps torchvision && python tools/torchvision_reference.py

In an environment with cnnkit's own torch: the operators that torchvision compiles are not needed, and are declared here
so that it can be imported with any torch. Writes `tests/goldens/torchvision.txt`, each network's layers with their
tensors' shapes in order, and `torchvision.json`, published facts and outputs on weights that both sides can make.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDENS = Path(__file__).resolve().parents[1] / "tests" / "goldens"
NAMES = [
    "alexnet",
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "googlenet",
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
]
BATCH_NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
PIXELS = 75


def models() -> Any:
    """Import torchvision's models without its compiled operators."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import torchvision.models

    globals()["kept"] = library  # its operators live as long as it does
    return torchvision.models


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor's values by its name: statistics filled so that a mistake in one shows.

    The generator's stream never changes, by NumPy's policy.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if len(shape) > 1:
        reach = (3 / np.prod(shape[1:])) ** 0.5
        return random.uniform(-reach, reach, shape).astype(np.float32)
    low, high = (-0.5, 0.5) if name.endswith(("bias", "mean")) else (0.5, 2)
    return random.uniform(low, high, shape).astype(np.float32)


def shapes(net: torch.nn.Module) -> list[str]:
    """Return a line for each layer: its name and its tensors, a batch normalisation in one word."""
    layers: dict[str, dict[str, str]] = {}
    for key, value in net.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        layers.setdefault(layer, {})[leaf] = "x".join(map(str, value.shape))
    return [
        f"{layer} norm {leaves['weight']}"
        if list(leaves) == BATCH_NORM
        else " ".join([layer, *(f"{leaf} {shape}" for leaf, shape in leaves.items())])
        for layer, leaves in layers.items()
    ]


def outputs(net: torch.nn.Module) -> list[float]:
    """Return a few logits of the net with seeded weights for a seeded image."""
    for key, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(seeded(key, tuple(value.shape))))
    image = seeded("image", (1, 3, PIXELS, PIXELS)) * 100
    with torch.no_grad():
        return [round(value, 5) for value in net.eval()(torch.from_numpy(image))[0, ::100].tolist()]


def main() -> None:
    """Write the two files."""
    library = models()
    lines, facts = [], {}
    for name in NAMES:
        weights = library.get_model_weights(name).DEFAULT
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        net = library.get_model(name, weights=None, **options)
        transforms = weights.transforms()
        facts[name] = {
            "file": weights.url.rpartition("/")[2],
            "params": weights.meta["num_params"],
            "gmacs": weights.meta["_ops"],
            "smallest": weights.meta["min_size"][0],
            "top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
            "resize": transforms.resize_size[0],
            "crop": transforms.crop_size[0],
            "mean": transforms.mean,
            "std": transforms.std,
            "logits": outputs(net),
        }
        lines += [f"# {name}", *shapes(net)]
        print(name, facts[name]["logits"][:3])
    import torchvision

    GOLDENS.mkdir(exist_ok=True)
    (GOLDENS / "torchvision.txt").write_text("\n".join(lines) + "\n")
    versions = {"torchvision": torchvision.__version__, "pixels": PIXELS}
    (GOLDENS / "torchvision.json").write_text(json.dumps(versions | {"networks": facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
