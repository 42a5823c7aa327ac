"""Seconds per prediction: eager PyTorch, Keras `predict`, ONNX Runtime, and cnnkit's optimised network, in turn.

    python3 -m venv /tmp/keras && /tmp/keras/bin/pip install tensorflow-cpu
    python benchmarks/inference.py --keras-python /tmp/keras/bin/python
    python benchmarks/inference.py --keras-python ... --runs runs/chapter    # and accuracy, of what chapter.py trained

One image at a time, and batches of 64, float32 in memory. Each contestant is a process of its own with its default
threads. With --runs the test accuracy of each trained network is measured unchanged, optimised in fp32 and in bf16, and
quantised to int8 by ONNX Runtime. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from _lib.peers import keras_network, network
from _lib.report import FOR_BF16, RESULTS, earlier, instructions, write
from _lib.turns import Contestant, Turn, answer, in_turn
from _lib.work import WORK, Work

BATCHES = (1, 64)
SPAN = 0.5  # seconds of a turn
NETS = [key for key in WORK if key not in ("vgg11",)]  # 128 million parameters are slow to export
CALIBRATION = 512  # training images that int8's scales are taken from


def repeat(title: str, batch: int, predict: Callable[[], object], turn: Turn) -> None:
    """Predict for a while, again and again, and report the seconds of one."""
    predict()
    while True:
        start, times = time.perf_counter(), 0
        while not times or time.perf_counter() - start < SPAN:
            predict()
            times += 1
        turn(title, (time.perf_counter() - start) / times)


def random_images(work: Work, batch: int) -> Any:
    """Return images N x 1 x H x W."""
    import torch

    return torch.rand(batch, 1, work.pixels, work.pixels)


def eager(work: Work, batch: int, turn: Turn) -> None:
    """The network as it is."""
    import torch

    net, x = network(work).eval(), random_images(work, batch)
    with torch.inference_mode():
        repeat(f"eager PyTorch {torch.__version__}", batch, lambda: net(x), turn)


def keras(work: Work, batch: int, turn: Turn) -> None:
    """Keras' own loop over one batch."""
    import numpy as np

    net, k = keras_network(work)
    x = np.random.default_rng(0).random((batch, work.pixels, work.pixels, 1), dtype=np.float32)
    repeat(f"Keras {k.__version__} predict", batch, lambda: net.predict(x, batch_size=batch, verbose=0), turn)


def onnxruntime(work: Work, batch: int, turn: Turn) -> None:
    """ONNX Runtime with its defaults, from and to numpy."""
    import onnxruntime as runtime

    from cnnkit.deploy import to_onnx

    session = runtime.InferenceSession(to_onnx(network(work), (1, work.pixels, work.pixels)))
    x = random_images(work, batch).numpy()
    repeat(f"ONNX Runtime {runtime.__version__}", batch, lambda: session.run(None, {"images": x}), turn)


def cnnkit(work: Work, batch: int, turn: Turn, precision: Any = "fp32") -> None:
    """What `cnnkit.deploy.optimise_for_inference` returns."""
    from cnnkit.core.allocator import keep_large_blocks
    from cnnkit.deploy import optimise_for_inference

    keep_large_blocks()
    runner = optimise_for_inference(network(work), (1, work.pixels, work.pixels), batch, precision)
    x = random_images(work, batch)
    repeat(f"cnnkit, {precision}: {runner.engine}", batch, lambda: runner(x), turn)


def cnnkit_bf16(work: Work, batch: int, turn: Turn) -> None:
    """The same in half precision."""
    cnnkit(work, batch, turn, "bf16")


CONTESTANTS: dict[str, Callable[[Work, int, Turn], None]] = {
    "eager": eager,
    "keras": keras,
    "onnxruntime": onnxruntime,
    "cnnkit": cnnkit,
    "cnnkit-bf16": cnnkit_bf16,
}


def accuracies(run: Path) -> dict[str, float]:
    """Return the test accuracy of a trained network unchanged, and optimised in each way."""
    import torch

    from cnnkit.data import Batches, load_dataset
    from cnnkit.deploy import load, optimise_for_inference, to_onnx

    model = load(run)
    net, bundle = model.net, model.bundle
    data = load_dataset("fashion-mnist")
    assert data.test
    image = (bundle.in_channels, *bundle.image_size)
    ways: dict[str, Callable[[Any], Any]] = {
        "as it is": torch.inference_mode()(net),
        "fp32": optimise_for_inference(net, image, 64),
        "bf16": optimise_for_inference(net, image, 64, "bf16"),
    }
    calibration = Batches(data.train.subset(torch.arange(CALIBRATION)), 64, bundle.preprocess)
    ways["int8"] = quantised(to_onnx(net, image), [x.contiguous().numpy() for x, _ in calibration])
    right = dict.fromkeys(ways, 0)
    for x, y in Batches(data.test, 64, bundle.preprocess):
        for name, way in ways.items():
            right[name] += int((way(x).argmax(1) == y).sum())
    return {name: correct / len(data.test) for name, correct in right.items()}


def quantised(model: bytes, batches: Iterable[Any]) -> Callable[[Any], Any]:
    """Return what runs the model in int8, its scales taken from the batches."""
    import onnxruntime as runtime
    import torch
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # without types
        """Hands over batch after batch."""

        def __init__(self) -> None:
            self.rest = iter(batches)

        def get_next(self) -> Any:
            return next(({"images": x} for x in self.rest), None)

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "ready", "small"))
        Path(plain).write_bytes(model)
        quant_pre_process(plain, ready)
        quantize_static(ready, small, Reader())
        session = runtime.InferenceSession(small)
    return lambda x: torch.from_numpy(session.run(None, {"images": x.contiguous().numpy()})[0])


def main() -> None:
    """Measure network after network and write the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", help="the Python of an environment with tensorflow-cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=NETS, default=NETS, help="the networks to measure again")
    parser.add_argument("--runs", type=Path, help="what benchmarks/chapter.py has trained, for the accuracies")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, key, batch = options.worker
        answer(lambda turn: CONTESTANTS[name](WORK[key], int(batch), turn))
        return

    half = sys.executable if instructions() in FOR_BF16 else None  # elsewhere it takes minutes
    pythons = dict.fromkeys(CONTESTANTS, sys.executable) | {"keras": options.keras_python, "cnnkit-bf16": half}
    figures = earlier(options.output, "inference")
    for key in options.only:
        for batch in BATCHES:
            contestants = {
                name: Contestant([python, __file__, "--worker", name, key, str(batch)])
                for name, python in pythons.items()
                if python
            }
            figures[f"{key} {batch}"] = in_turn(contestants, options.rounds, f"{key}, batches of {batch}")
        if options.runs and (folders := [path.parent for path in (options.runs / key).glob("*/best")]):
            figures[f"{key} accuracy"] = accuracies(folders[0])
            print(json.dumps(figures[f"{key} accuracy"]), flush=True)
        report(options.output, figures, options.rounds)


def report(folder: Path, figures: dict[str, Any], rounds: int) -> None:
    """Write the figures so far."""
    titles = next(row["titles"] for row in figures.values() if "titles" in row)
    peers = "; ".join(title for name, title in titles.items() if "cnnkit" not in name)
    work = f"medians of {rounds} rounds in turn; {peers}; times as fast as eager, round by round; test accuracy"
    write(folder, "inference", work, figures)


if __name__ == "__main__":
    main()
