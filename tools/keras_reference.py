"""Write what the chapter's networks compute in Keras, for the parity tests: tests/goldens/keras.json.

    python -m venv keras && keras/bin/pip install tensorflow-cpu && keras/bin/python tools/keras_reference.py

TensorFlow is needed here only, in an environment of its own. Weights and images are not stored: both sides draw them
from numpy's RandomState, whose streams never change, weights layer by layer in the order in which a layer is drawn
below and in Keras' own layout. The goldens hold how they are drawn, outputs, the layers' shapes, the totals of
parameters, moving statistics after a step of training, and three steps of stochastic gradient descent.
"""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
if __name__ == "__main__":
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # the same sums everywhere; importers of the networks want speed

import keras
import numpy as np
import tensorflow as tf
from keras import layers

GOLDEN = Path(__file__).resolve().parents[1] / "tests/goldens/keras.json"
WEIGHT_SEED, IMAGE_SEED = 1, 2
# every weight far from the value that would hide it: no bias 0, no scale 1, no mean 0, no variance 1
RANGES = {
    "bias": (-0.5, 0.5),
    "gamma": (0.5, 1.5),
    "beta": (-0.5, 0.5),
    "moving_mean": (-0.5, 0.5),
    "moving_variance": (0.5, 2.0),
}
SHAPED = (layers.Conv2D, layers.BatchNormalization, layers.MaxPool2D, layers.GlobalAvgPool2D, layers.Dense)
CLASSES, ENTRIES, STEPS = 10, 3, 3

Maps = Any  # a symbolic tensor of Keras
Constants = tuple[float, float]  # of batch normalisation: decay, epsilon
KERAS: Constants = (0.99, 1e-3)


class Drawing:
    """The layers of a network in the order in which they are drawn, each with what it makes."""

    def __init__(self, size: tuple[int, int]):
        self.input = keras.Input((*size, 1))
        self.layers: list[layers.Layer] = []
        self.made: list[Maps] = []
        self.logits: Maps = None

    def __call__(self, x: Maps, *added: layers.Layer) -> Maps:
        """Lay layers behind each other, from `x` on."""
        for layer in added:
            x = layer(x)
            self.layers.append(layer)
            self.made.append(x)
        return x

    def classify(self, x: Maps, activation: str) -> Maps:
        """Lay the last dense layer and its activation."""
        self.logits = self(x, layers.Dense(CLASSES))
        return self(self.logits, layers.Activation(activation))

    def model(self) -> keras.Model:
        """Return what maps images to the logits and to what each layer makes."""
        return keras.Model(self.input, [self.logits, *self.made])


def conv(channels: int, kernel: int, stride: int = 1, padding: str = "same", activation: str = "relu") -> layers.Layer:
    """Return a convolution of chapters 5.6 to 5.9."""
    return layers.Conv2D(channels, kernel, strides=stride, padding=padding, activation=activation)


def pool(window: int, stride: int, padding: str = "valid") -> layers.Layer:
    """Return maximum pooling."""
    return layers.MaxPool2D(window, strides=stride, padding=padding)


def norm(constants: Constants = KERAS) -> layers.Layer:
    """Return batch normalisation."""
    return layers.BatchNormalization(momentum=constants[0], epsilon=constants[1])


def lenet(draw: Drawing, x: Maps, constants: Constants | None = None) -> None:
    """5.5, and 5.10 with the constants of batch normalisation."""

    def activated() -> list[layers.Layer]:
        return [*([norm(constants)] if constants else []), layers.Activation("sigmoid")]

    for channels in (6, 16):
        x = draw(x, layers.Conv2D(channels, 5), *activated(), pool(2, 2))
    x = draw(x, layers.Flatten())
    for width in (120, 84):
        x = draw(x, layers.Dense(width), *activated())
    draw.classify(x, "sigmoid")


def two_hidden(draw: Drawing, x: Maps, width: int = 4096) -> None:
    """The dense half of 5.6 and 5.7."""
    x = draw(x, layers.Flatten())
    for _ in range(2):
        x = draw(x, layers.Dense(width, activation="relu"), layers.Dropout(0.5))
    draw.classify(x, "sigmoid")


def alexnet(draw: Drawing, x: Maps) -> None:
    """5.6."""
    x = draw(x, conv(96, 11, 4, "valid"), pool(3, 2), conv(256, 5), pool(3, 2))
    two_hidden(draw, draw(x, *(conv(channels, 3) for channels in (384, 384, 256)), pool(3, 2)))


def vgg(draw: Drawing, x: Maps, counts: tuple[int, ...], width: int = 64) -> None:
    """5.7, with `width` channels in the first block."""
    for times, count in zip((1, 2, 4, 8, 8), counts, strict=True):
        x = draw(x, *(conv(times * width, 3) for _ in range(count)), pool(2, 2))
    two_hidden(draw, x, 64 * width)


def nin(draw: Drawing, x: Maps) -> None:
    """5.8. Its mean is of what ReLU lets through; the logits are the mean without that ReLU."""
    for channels, *window in ((96, 11, 4, "valid"), (256, 5, 1, "same"), (384, 3, 1, "same")):
        x = draw(x, conv(channels, *window), conv(channels, 1), conv(channels, 1), pool(3, 2))
    x = draw(x, layers.Dropout(0.5), conv(CLASSES, 3), conv(CLASSES, 1), conv(CLASSES, 1, activation="linear"))
    draw.logits = layers.GlobalAvgPool2D()(x)
    draw(x, layers.Activation("relu"), layers.GlobalAvgPool2D(), layers.Flatten())


INCEPTION = (  # 1x1 | 1x1, 3x3 | 1x1, 5x5 | pooled, 1x1; a pooling with stride 2 where None stands
    ((64,), (96, 128), (16, 32), 32),
    ((128,), (128, 192), (32, 96), 64),
    None,
    ((192,), (96, 208), (16, 48), 64),
    ((160,), (112, 224), (24, 64), 64),
    ((128,), (128, 256), (24, 64), 64),
    ((112,), (144, 288), (32, 64), 64),
    ((256,), (160, 320), (32, 128), 128),
    None,
    ((256,), (160, 320), (32, 128), 128),
    ((384,), (192, 384), (48, 128), 128),
)


def googlenet(draw: Drawing, x: Maps) -> None:
    """5.9."""
    x = draw(x, conv(64, 7, 2), pool(3, 2, "same"), conv(64, 1), conv(192, 3), pool(3, 2, "same"))
    for row in INCEPTION:
        if row is None:
            x = draw(x, pool(3, 2, "same"))
            continue
        *branches, pooled = row
        ways = [
            draw(x, *(conv(width, kernel) for width, kernel in zip(widths, (1, last), strict=False)))
            for widths, last in zip(branches, (1, 3, 5), strict=True)
        ]
        x = draw([*ways, draw(x, pool(3, 1, "same"), conv(pooled, 1))], layers.Concatenate())
    draw.classify(draw(x, layers.GlobalAvgPool2D()), "linear")


def stem(draw: Drawing, x: Maps) -> Maps:
    """What 5.11 and 5.12 begin with."""
    first = layers.Conv2D(64, 7, strides=2, padding="same")
    return draw(x, first, norm(), layers.ReLU(), pool(3, 2, "same"))


def resnet(draw: Drawing, x: Maps, counts: tuple[int, ...]) -> None:
    """5.11."""
    x = stem(draw, x)
    for width, count in zip((64, 128, 256, 512), counts, strict=True):
        for number in range(count):
            narrows = width > 64 and number == 0
            stride = 2 if narrows else 1
            y = draw(x, layers.Conv2D(width, 3, strides=stride, padding="same"), norm(), layers.ReLU())
            y = draw(y, layers.Conv2D(width, 3, padding="same"), norm())
            if narrows:
                x = draw(x, layers.Conv2D(width, 1, strides=stride))
            x = draw([y, x], layers.Add(), layers.ReLU())
    draw.classify(draw(x, layers.GlobalAvgPool2D()), "softmax")


def densenet(draw: Drawing, x: Maps, dropout: float = 0.5) -> None:
    """5.12: four blocks of four bottlenecks."""
    growth, x = 32, stem(draw, x)
    for block in range(4):
        if block:
            halved = layers.Conv2D(x.shape[-1] // 2, 1)
            x = draw(x, norm(), layers.ReLU(), halved, pool(2, 2, "same"))
        for _ in range(4):
            y = draw(x, norm(), layers.ReLU(), layers.Conv2D(4 * growth, 1), norm(), layers.ReLU())
            y = draw(y, layers.Conv2D(growth, 3, padding="same"), layers.Dropout(dropout))
            x = draw([x, y], layers.Concatenate())
    draw.classify(draw(x, layers.GlobalAvgPool2D()), "softmax")


WIRINGS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "lenet": (lenet, {}),
    "lenet_bn": (lenet, {"constants": (0.9, 1e-5)}),
    "alexnet": (alexnet, {}),
    "vgg11": (vgg, {"counts": (1, 1, 2, 2, 2)}),
    "vgg13": (vgg, {"counts": (2, 2, 2, 2, 2)}),
    "vgg16": (vgg, {"counts": (2, 2, 3, 3, 3)}),
    "vgg19": (vgg, {"counts": (2, 2, 4, 4, 4)}),
    "nin": (nin, {}),
    "googlenet": (googlenet, {}),
    "resnet18": (resnet, {"counts": (2, 2, 2, 2)}),
    "resnet34": (resnet, {"counts": (3, 4, 6, 3)}),
    "densenet": (densenet, {}),
}
# what He's bound of the kernels is multiplied with, so that logits are between 1 and 10
GAINS = {"lenet": 3, "lenet_bn": 4, "resnet18": 0.75, "resnet34": 0.65}
DESCENT_GAIN = 2  # no sigmoid saturates, so that the first layer moves too

Size = tuple[int, int]
TINY, WIDE, HIGH, OWN = (28, 28), (75, 101), (97, 75), (224, 224)
CONVOLUTIONAL: tuple[Size, ...] = (TINY, WIDE, HIGH)
INFERENCE: dict[str, tuple[Size, ...]] = {
    "lenet": CONVOLUTIONAL,
    "lenet_bn": CONVOLUTIONAL,
    "alexnet": (WIDE, HIGH, OWN),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), (WIDE, HIGH, OWN)),
    "nin": (WIDE, HIGH, OWN),
    "googlenet": (*CONVOLUTIONAL, (96, 96)),
    "resnet18": (*CONVOLUTIONAL, OWN),
    "resnet34": (*CONVOLUTIONAL, OWN),
    "densenet": (*CONVOLUTIONAL, (96, 96)),
}
KERAS_LENET = {"decay": KERAS[0], "epsilon": KERAS[1]}  # 5.10.3
TRAINING: tuple[tuple[str, Size, dict[str, float]], ...] = (
    ("lenet_bn", TINY, {}),
    ("lenet_bn", TINY, KERAS_LENET),
    ("resnet18", (33, 33), {}),
    ("resnet34", (33, 33), {}),
    ("densenet", (33, 33), {"dropout": 0}),
)


def random_weights(drawing: Drawing, gain: float) -> None:
    """Draw every weight, in the order of the layers."""
    random = np.random.RandomState(WEIGHT_SEED)
    for layer in drawing.layers:
        values = []
        for weight in layer.weights:
            bound = gain * math.sqrt(6 / math.prod(weight.shape[:-1]))
            low, high = RANGES.get(weight.name, (-bound, bound))
            values.append(random.uniform(low, high, weight.shape).astype("float32"))
        layer.set_weights(values)


def random_images(batch: int, size: Size) -> np.ndarray:
    """Draw noise, each image of a brightness of its own."""
    random = np.random.RandomState(IMAGE_SEED)
    noise = random.uniform(-1, 1, (batch, *size, 1))
    return (noise + np.linspace(-1, 1, batch).reshape(-1, 1, 1, 1)).astype("float32")


def build(
    name: str, size: Size, arguments: dict[str, float], gain: float | None = None
) -> tuple[Drawing, dict[str, Any]]:
    """Return the network with its weights, and what says which one it is."""
    wiring, own = WIRINGS[name]
    given = {"constants": (arguments["decay"], arguments["epsilon"])} if "decay" in arguments else arguments
    drawing = Drawing(size)
    wiring(drawing, drawing.input, **own | given)
    gain = gain or GAINS.get(name, 1)
    random_weights(drawing, gain)
    return drawing, {"network": name, "size": size, "arguments": arguments, "gain": gain}


def rounded(values: Any) -> Any:
    """Return numbers with the digits that float32 has."""
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.8g}")


def numbers(tensor: Any) -> Any:
    """Return a tensor as nested lists."""
    return rounded(np.asarray(tensor).tolist())


def inference(name: str, size: Size, arguments: dict[str, float]) -> dict[str, Any]:
    """Return shapes, parameters, logits and the output as the chapter writes it, of two images."""
    drawing, case = build(name, size, arguments)
    model = drawing.model()
    logits, *made = model(random_images(2, size), training=False)
    shapes = [
        f"{type(layer).__name__} {'x'.join(map(str, values.shape[1:]))}"
        for layer, values in zip(drawing.layers, made, strict=True)
        if isinstance(layer, SHAPED)
    ]
    output = made[-1]
    return case | {
        "layers": shapes,
        "total": model.count_params(),
        "logits": numbers(logits),
        "output": numbers(output),
    }


def training(name: str, size: Size, arguments: dict[str, float]) -> dict[str, Any]:
    """Return the logits of eight images in training, and the moving statistics then: a few, and the mean of all."""
    drawing, case = build(name, size, arguments)
    logits = drawing.model()(random_images(8, size), training=True)[0]
    norms = [layer for layer in drawing.layers if isinstance(layer, layers.BatchNormalization)]

    def summary(kind: str) -> list[list[float]]:
        values = [np.asarray(getattr(layer, kind), "float64") for layer in norms]
        return [rounded([*value[:ENTRIES].tolist(), value.mean()]) for value in values]

    return case | {
        "logits": numbers(logits),
        "moving_mean": summary("moving_mean"),
        "moving_variance": summary("moving_variance"),
    }


def descent(name: str) -> dict[str, Any]:
    """Return the losses of three steps on one batch of 16, then the logits in inference and in training."""
    drawing, case = build(name, TINY, {}, DESCENT_GAIN)
    model, images, labels = drawing.model(), random_images(16, TINY), np.arange(16) % CLASSES
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(learning_rate=0.9)
    losses = []
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True)[0])
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, weights), weights, strict=True))
        losses.append(float(value))
    return case | {
        "losses": rounded(losses),
        "logits": numbers(model(images, training=False)[0]),
        "training_logits": numbers(model(images, training=True)[0]),
    }


def main() -> None:
    """Compute everything and write it."""
    tf.config.experimental.enable_op_determinism()
    inferred = [(name, size, {}) for name, sizes in INFERENCE.items() for size in sizes]
    golden = {
        "made with": f"Keras {keras.__version__}, TensorFlow {tf.__version__}",
        "weight_seed": WEIGHT_SEED,
        "image_seed": IMAGE_SEED,
        "ranges": RANGES,
        "inference": [inference(*case) for case in [*inferred, ("lenet_bn", TINY, KERAS_LENET)]],
        "training": [training(*case) for case in TRAINING],
        "descent": [descent(name) for name in ("lenet", "lenet_bn")],
    }
    text = json.dumps(golden, indent=1, sort_keys=True)
    flat = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)  # a list of numbers on one line
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(flat + "\n")


if __name__ == "__main__":
    main()
