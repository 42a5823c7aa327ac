"""What is measured, by the names that the results' files have for it."""

from dataclasses import dataclass

LR = 0.01
LANES_EPOCH, LANES_PART = 54_000, 16_384  # images of an epoch, and of a turn of `lanes.py`
AUGMENT_BATCH = 128  # images of a batch of `augment.py`


@dataclass(frozen=True)
class Work:
    """A network to train."""

    net: str
    pixels: int
    batch: int
    images: int  # in a turn
    width: int | None = None

    @property
    def title(self) -> str:
        """The name in a table."""
        width = f", width {self.width}" if self.width else ""
        return f"{self.net} at {self.pixels}, batch {self.batch}{width}"


WORK = {
    "lenet": Work("lenet", 28, 32, 16384),
    "lenet_bn": Work("lenet_bn", 28, 32, 8192),
    "resnet18-28": Work("resnet18", 28, 128, 2048),
    "resnet18": Work("resnet18", 96, 32, 384),
    "googlenet": Work("googlenet", 96, 32, 384),
    "densenet": Work("densenet", 96, 32, 384),
    "alexnet": Work("alexnet", 224, 32, 192),
    "nin": Work("nin", 224, 32, 192),
    "vgg11-narrow": Work("vgg11", 224, 32, 192, 16),
    "vgg11": Work("vgg11", 224, 16, 32),
}
REPORTED = {  # test accuracy on Fashion-MNIST after five epochs, as the chapter or the books behind it report
    "lenet": 0.753,
    "lenet_bn": 0.854,
    "resnet18-28": 0.892,
    "vgg11": 0.886,
    "densenet": 0.884,
    "resnet18": 0.926,
    "googlenet": 0.896,
    "nin": 0.831,
    "alexnet": 0.840,
}
COSTS = {  # of batch normalisation's statistics: network, engine, images in a batch, batches in an epoch, width
    "resnet18 at 28, width 16": ("resnet18", "torch", 64, 50, 16),
    "resnet18 at 28": ("resnet18", "torch", 32, 50, 64),
    "lenet_bn": ("lenet_bn", "torch", 64, 50, 0),
    "lenet_bn in lanes": ("lenet_bn", "lanes", 64, 50, 0),
    "lenet_bn in lanes, small batches": ("lenet_bn", "lanes", 32, 50, 0),
    "lenet_bn in lanes, long epochs": ("lenet_bn", "lanes", 64, 850, 0),
}
