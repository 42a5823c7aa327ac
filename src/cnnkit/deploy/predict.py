"""What a trained net says of pictures."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.deploy.bundle import Bundle
from cnnkit.train.evaluate import prediction_mode

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture, best first, with their probabilities."""

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(net: nn.Module, bundle: Bundle, images: Iterable[Tensor], top: int = 3) -> Iterator[Prediction]:
    """Yield a prediction for each image, uint8, C x H x W of any size, C as the net takes.

    Raises UsageError for another number of channels, or `top` below 1.
    """
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    device = next(net.parameters()).device
    for image in images:
        if image.ndim != 3 or image.shape[0] != bundle.in_channels:
            raise UsageError(f"the net takes {bundle.in_channels} x H x W, not {tuple(image.shape)}")
        with prediction_mode(net):
            scores = net(bundle.preprocess(image[None].to(device))).softmax(1)[0]
        best = scores.topk(min(top, len(bundle.classes)))
        yield Prediction(tuple(bundle.classes[index] for index in best.indices.tolist()), tuple(best.values.tolist()))
