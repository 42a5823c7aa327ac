"""Networks that lanes compute, with every kind of layer, and batches for them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES, BATCH = 5, 21  # no multiple of the lanes, whose last group is nearly empty then


def head() -> list[nn.Module]:
    return [nn.Flatten(), nn.LazyLinear(CLASSES)]


# net and image; every kind of layer, and the sizes where tiles and registers do not come out even
NETS: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, int, int]]] = {
    "dense alone": (lambda: [nn.Flatten(), nn.Linear(30, CLASSES, bias=False)], (2, 3, 5)),
    "two dense layers": (lambda: [nn.Flatten(), nn.Linear(12, 37), nn.Tanh(), nn.Linear(37, CLASSES)], (3, 2, 2)),
    "strides and padding": (
        lambda: [nn.Conv2d(2, 7, (3, 2), (2, 1), (1, 2)), nn.ReLU(), nn.Conv2d(7, 3, 3, padding=1), *head()],
        (2, 7, 3),
    ),
    "a kernel as large as the image": (lambda: [nn.Conv2d(3, 6, 4), nn.Sigmoid(), *head()], (3, 4, 4)),
    "1x1 and the mean": (
        lambda: [nn.Conv2d(1, 9, 1), nn.ReLU(), nn.Conv2d(9, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        (1, 5, 4),
    ),
    "overlapping pools": (
        lambda: [nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2), nn.AvgPool2d(2, 1), *head()],
        (1, 9, 9),
    ),
    "gaps between pools": (lambda: [nn.Conv2d(1, 3, 2), nn.MaxPool2d(2, 3), nn.Tanh(), *head()], (1, 10, 10)),
    "normalised": (
        lambda: [
            *(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Sigmoid(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.LazyLinear(10, bias=False), nn.BatchNorm1d(10, 1e-3, 0.3), nn.ReLU()),
            nn.Linear(10, CLASSES),
        ],
        (2, 6, 6),
    ),
    "normalised first": (lambda: [nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.ReLU(), *head()], (2, 4, 4)),
    "pooled first": (lambda: [nn.AvgPool2d(2), nn.Sigmoid(), nn.Dropout(0.0), *head()], (2, 4, 4)),
    "a kernel as large as the image, with padding": (
        lambda: [nn.Conv2d(2, 3, 3, 3, 1), nn.Tanh(), *head()],
        (2, 3, 3),
    ),
    "no chance of 25 taps": (lambda: [nn.Conv2d(1, 2, 7, padding=3), nn.Tanh(), *head()], (1, 8, 8)),
}


def build(layers: list[nn.Module], image: tuple[int, int, int]) -> nn.Sequential:
    net = nn.Sequential(*layers).eval()
    net(torch.zeros(1, *image))  # lazy layers learn their sizes
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return net


def batch(image: tuple[int, int, int], images: int = BATCH) -> tuple[Tensor, Tensor]:
    return torch.randn(images, *image), torch.randint(CLASSES, (images,))
