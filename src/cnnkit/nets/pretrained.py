"""torchvision's published ImageNet weights for the networks that follow its definitions."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cnnkit.core.cache import cached_file
from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.fetch import fetch, forget
from cnnkit.core.text import encode
from cnnkit.nets.weights import Loaded, give_weights, read_weights_file

__all__ = [
    "WEIGHTS",
    "Weights",
    "download_weights",
    "fetch_weights",
    "load_pretrained",
    "own_names",
    "published_weights",
    "torchvision_names",
]

SERVER = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Weights:
    """A published file of weights, and the preprocessing that its network expects."""

    file: str  # with the first eight digits of its SHA-256 before the suffix
    top1: float  # published accuracy on ImageNet's validation images, percent, one centre crop
    resize: int = 256  # pixels of the shorter side, bilinear; then the centre crop
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def sha256(self) -> str:
        """The file's SHA-256 or, if unknown, its first eight digits from the file's name."""
        digits = self.file.removesuffix(".pth").rpartition("-")[2]
        return next((digest for digest in SHA256 if digest.startswith(digits)), digits)


SHA256 = (  # known digests of published files
    "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    "1378be20a8e875cf1568b8a71654e704449655e34711a959a38b04fb34905cef",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    "8d451a50bad6b9a83f477126c443716882a17af26e94d338154b058fb2dfd359",
    "a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
    "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6",
    "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
    "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
)
WEIGHTS = {
    "alexnet.tv": Weights("alexnet-owt-7be5be79.pth", 56.522),
    "vgg11.tv": Weights("vgg11-8a719046.pth", 69.020),
    "vgg11_bn.tv": Weights("vgg11_bn-6002323d.pth", 70.370),
    "vgg13.tv": Weights("vgg13-19584684.pth", 69.928),
    "vgg13_bn.tv": Weights("vgg13_bn-abd245e5.pth", 71.586),
    "vgg16.tv": Weights("vgg16-397923af.pth", 71.592),
    "vgg16_bn.tv": Weights("vgg16_bn-6c64b313.pth", 73.360),
    "vgg19.tv": Weights("vgg19-dcbb9e9d.pth", 72.376),
    "vgg19_bn.tv": Weights("vgg19_bn-c79401a0.pth", 74.218),
    # ported from TensorFlow, with pixels from -1 to 1; torchvision rescales its usual input within the network
    "googlenet.tv": Weights("googlenet-1378be20.pth", 69.778, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "resnet18.tv": Weights("resnet18-f37072fd.pth", 69.758),
    "resnet34.tv": Weights("resnet34-b627a593.pth", 73.314),
    "resnet50.tv": Weights("resnet50-11ad3fa6.pth", 80.858, resize=232),
    "resnet101.tv": Weights("resnet101-cd907fc2.pth", 81.886, resize=232),
    "resnet152.tv": Weights("resnet152-f82ba261.pth", 82.284, resize=232),
    "densenet121.tv": Weights("densenet121-a639ec97.pth", 74.434),
    "densenet161.tv": Weights("densenet161-8d451a50.pth", 77.138),
    "densenet169.tv": Weights("densenet169-b2777c0a.pth", 75.600),
    "densenet201.tv": Weights("densenet201-c1103571.pth", 76.896),
}


def load_pretrained(net: nn.Sequential, name: str, path: Path | None = None, new_head: bool = False) -> Loaded:
    """Load the published weights of the zoo's `name`, or those in a .pth or .safetensors file, into `net`.

    No code in the file is run. Without a path, the weights are downloaded once into the cache and verified. Tensor
    names may be torchvision's or the network's own. `give_weights` adapts other channels and, with `new_head`, other
    classes. Raises UsageError for a network without published weights, DataError for a file that is missing, corrupt or
    of another network.
    """
    path = download_weights(name) if path is None else path
    given = own_names(net, name, read_weights_file(path))
    classes = [len(value) for value in net[-1].state_dict().values()][-1]  # of the head
    return give_weights(net, given, f"{path}: not the weights of {name}", classes, new_head=new_head)


def download_weights(name: str) -> Path:
    """Return the file of the published weights of the zoo's `name`, downloading it unless it is in the cache.

    Raises UsageError for a network without published weights, DataError if the download fails or a file put into the
    cache has another SHA-256.
    """
    weights = published_weights(name)
    path = cached_file("weights", weights.file)
    try:
        return fetch([SERVER + weights.file], path, weights.sha256)
    except DataError as error:
        raise DataError(f"cannot get the weights of {name}: {error}; or put the file at {path}") from error


def fetch_weights(url: str) -> tuple[Path, dict[str, Tensor]]:
    """Return the weights file of a URL, downloading it unless it is in the cache, and its tensors.

    The first download is trusted, and its SHA-256 is saved beside it. Raises DataError if the download fails, differs
    from the first one, or has no weights; then nothing is cached.
    """
    last = re.split(r"[?#]", url)[0].rpartition("/")[2]
    name = re.sub(r"[^\w.-]", "_", last, flags=re.ASCII).lstrip(".")[-100:] or "weights"
    path = cached_file("weights", hashlib.sha256(encode(url)).hexdigest()[:16], name)
    fetch([url], path)
    try:
        return path, read_weights_file(path, url)
    except DataError:
        forget(path)
        raise


def own_names(net: nn.Module, name: str, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of the zoo's `name`, renamed from torchvision's names to the network's own."""
    if isinstance(net, nn.Sequential) and name in WEIGHTS and not net.state_dict().keys() <= given.keys():
        return _renamed(given, torchvision_names(net, name))
    return dict(given)


def published_weights(name: str) -> Weights:
    """Return the entry of the zoo's `name` in WEIGHTS; raises UsageError if there is none."""
    if f"{name}.tv" in WEIGHTS:
        raise UsageError(f"{name} has no published weights; use {name}.tv")
    if name not in WEIGHTS:
        raise UsageError(f"{name} has no published weights; networks with weights: {', '.join(sorted(WEIGHTS))}")
    return WEIGHTS[name]


def torchvision_names(net: nn.Sequential, name: str) -> dict[str, str]:
    """Return torchvision's name of each layer with weights, by the layer's path in `net`, in its order."""
    family = name.partition(".")[0].rstrip("0123456789")
    weighted = dict.fromkeys(key.rpartition(".")[0] for key in net.state_dict())
    if family in NAMES:
        return {path: NAMES[family](path.split(".")) for path in weighted}
    # alexnet and the VGGs: two lists, by position
    leaves = [path for path, module in net.named_modules() if next(module.children(), None) is None]
    pool = leaves.index("pool")
    names = {path: f"features.{index}" for index, path in enumerate(leaves[:pool])}
    names |= {path: f"classifier.{index}" for index, path in enumerate(leaves[pool + 2 :])}  # after flatten
    return {path: names[path] for path in weighted}


def _resnet(path: list[str]) -> str:
    match path:
        case ["stem", index]:
            return "conv1" if index == "0" else "bn1"
        case [stage, block, part, layer]:
            where = f"layer{int(stage[-1]) - 1}.{block}"
            return f"{where}.downsample.{layer}" if part == "shortcut" else f"{where}.{layer.replace('norm', 'bn')}"
    return "fc"


def _googlenet(path: list[str]) -> str:
    if path[0] == "head":
        return "fc"
    pooled = path[-2] == "branch4"  # its pooling comes first
    unit, part = divmod(int(path[-1]) - pooled, 3)  # convolution, normalisation, ReLU
    layer = "bn" if part else "conv"
    match path:
        case [stage, _]:
            return f"conv{int(stage[-1]) + unit}.{layer}"
        case [_, block, "branch1", _]:
            return f"inception{block}.branch1.{layer}"
    return f"inception{path[1]}.{path[2]}.{unit + pooled}.{layer}"


def _densenet(path: list[str]) -> str:
    match path:
        case ["stem", index]:
            return "features.conv0" if index == "0" else "features.norm0"
        case [block, number, layer]:
            return f"features.denseblock{block[-1]}.denselayer{int(number) + 1}.{layer}"
        case ["pool", _]:
            return "features.norm5"
        case ["head", *_]:
            return "classifier"
    return f"features.{path[0]}.{'norm' if path[1] == '0' else 'conv'}"


NAMES = {"resnet": _resnet, "googlenet": _googlenet, "densenet": _densenet}


def _renamed(given: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors under the network's own names; their order in the file may differ from the network's."""
    ours = {theirs: path for path, theirs in names.items()}
    renamed = {}
    for key, value in given.items():
        if re.match(r"aux\d\.", key):  # GoogLeNet's auxiliary heads, used only in training
            continue
        layer, _, leaf = re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key).rpartition(".")  # DenseNet's older spelling
        renamed[f"{ours.get(layer, layer)}.{leaf}"] = value
    return renamed
