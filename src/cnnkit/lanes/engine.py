"""A network trained, measured and asked in lanes: one image in each lane of a register, from pixels to update."""

import ctypes
import math
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnnkit.core.compiler import load, texts
from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.lanes.chain import Size, read_chain
from cnnkit.lanes.source import aligned_size, write_source

__all__ = ["Engine"]

KINDS: dict[type[torch.optim.Optimizer], int] = {torch.optim.SGD: 1, torch.optim.Adam: 2, torch.optim.AdamW: 3}
ADAM = ("exp_avg", "exp_avg_sq")
SHARED = ("momentum", "nesterov", "betas", "eps")  # options of an optimiser that all of its groups have in common
SYMBOLS = ("lanes", "start", "stop", "train", "measure", "predict")
UNKNOWN = ("dampening", "maximize", "amsgrad")


class _Rule(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "nesterov")),
        *((name, ctypes.c_float) for name in ("momentum", "beta1", "beta2", "eps")),
        ("taken", ctypes.c_int64),
    ]


class _Weight(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("value", "first", "second")),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("factor", "decay")),
        ("learns", ctypes.c_int32),
    ]


class _Job(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("bytes", "floats", "labels", "scale", "shift", "sizes", "rates", "seeds")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in ("weights", "buffers", "rule", "losses", "correct", "gradients", "logits")
        ),
        *((name, ctypes.c_int64) for name in ("steps", "images")),
        ("smoothing", ctypes.c_float),
    ]


class Engine:
    """Trains and asks `net`, a chain of layers for images C x H x W, on so many threads.

    The module's own parameters and running statistics are read and written, no others: before and after each call
    the module is all there is. Images are N x C x H x W: float32 as the network takes them, or uint8, whose pixels p
    become p * scale + shift, each one number or one per channel. The first engine of a network compiles it, which
    takes seconds. Raises UsageError for a layer that lanes cannot take, and CnnkitError without a compiler.
    """

    def __init__(
        self,
        net: nn.Module,
        image: Size,
        *,
        scale: Tensor | float = 1 / 255,
        shift: Tensor | float = 0.0,
        threads: int | None = None,
        flags: tuple[str, ...] = (),
    ):
        self.net, self.image, self.threads = unwrapped(net), image, threads or torch.get_num_threads()
        layers = read_chain(net, image)
        self.classes = layers[-1].output[0]
        self._modules = [layer.module for layer in layers]
        self._norms = {layer.module: math.prod(layer.input[1:]) for layer in layers if layer.kind == "norm"}
        if not self._parameters:
            raise UsageError("lanes: the network has nothing to learn")
        channels = torch.ones(image[0])
        self._scale, self._shift = channels * scale, channels * shift
        source = {**texts("cnnkit.lanes"), "net.cpp": write_source(layers, image)}
        self._library = _typed(load("the network for lanes", source, SYMBOLS, flags))
        self.lanes = int(self._library.lanes())
        self._team = self._library.start(self.threads)
        weakref.finalize(self, self._library.stop, self._team)

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for module in self._modules for parameter in module.parameters()]

    def train(
        self,
        images: Tensor,
        labels: Tensor,
        sizes: Sequence[int],
        optimizer: torch.optim.Optimizer,
        rates: Sequence[float],
        *,
        seeds: Sequence[int] | None = None,
        smoothing: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Take a step on each batch: the first sizes[0] images, and so on, at the learning rates `rates`.

        `optimizer` is torch's SGD, Adam or AdamW over the net's parameters; its settings are obeyed (a group's
        `factor`, if any, multiplies the learning rate) and its state is kept. `seeds` are dropout's, `smoothing` the
        share of a label that is spread over all classes. Return the mean loss of each batch, float64, and how many of
        its images were classified correctly, int64.
        """
        rule, weights, rows = self._rule(optimizer)
        result = self._steps(images, labels, sizes, rule, weights, rates, seeds, smoothing)
        for state in rows:
            state["step"] += len(sizes)
        return result

    def gradients(
        self, images: Tensor, labels: Tensor, *, seed: int = 0, smoothing: float = 0.0
    ) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss of a batch, and its gradient by each parameter's name.

        The parameters stay as they are; running statistics follow.
        """
        weights = [self._weight(parameter, [], {}) for parameter in self._parameters]
        places = [aligned_size(parameter) for parameter in self._parameters]
        flat = torch.empty(sum(places))
        sizes = [len(labels)]
        losses, _ = self._steps(images, labels, sizes, _Rule(), weights, [0.0], [seed], smoothing, flat)
        parts = zip(self._parameters, flat.split(places), strict=True)
        names = {id(parameter): name for name, parameter in self.net.named_parameters()}
        return losses.item(), {names[id(own)]: part[: own.numel()].view_as(own).clone() for own, part in parts}

    def measure(self, images: Tensor) -> dict[nn.Module, tuple[int, Tensor, Tensor]]:
        """Return what each batch normalisation meets in a batch: values of a channel, mean, variance.

        Each normalises with these, as in training, and dropout keeps all. The variance is the biased one. The module
        stays as it is.
        """
        found = {norm: torch.empty(2, norm.num_features) for norm in self._norms}  # type: ignore[call-overload]
        job = self._job(images)
        weights = self._array([self._weight(parameter, [], {}) for parameter in self._parameters])
        places = _addresses([row for rows in found.values() for row in rows])
        job.weights, job.buffers = ctypes.addressof(weights), ctypes.addressof(places)
        self._library.measure(self._team, ctypes.byref(job))
        return {norm: (len(images) * area, *found[norm]) for norm, area in self._norms.items()}

    def predict(self, images: Tensor) -> Tensor:
        """Return logits N x classes, computed in prediction mode whatever the module's mode is."""
        logits = torch.empty(len(images), self.classes)
        job = self._job(images)
        weights = self._array([self._weight(parameter, [], {}) for parameter in self._parameters])
        job.weights = ctypes.addressof(weights)
        job.logits = logits.data_ptr()
        self._library.predict(self._team, ctypes.byref(job))
        return logits

    def _steps(
        self,
        images: Tensor,
        labels: Tensor,
        sizes: Sequence[int],
        rule: _Rule,
        weights: list[_Weight],
        rates: Sequence[float],
        seeds: Sequence[int] | None,
        smoothing: float,
        gradients: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        seeds = [0] * len(sizes) if seeds is None else seeds
        if not len(sizes) == len(rates) == len(seeds):
            raise UsageError(f"{len(sizes)} batches have {len(rates)} learning rates and {len(seeds)} seeds")
        if sum(sizes) != len(images) or len(labels) != len(images) or min(sizes, default=0) < 1:
            raise UsageError(f"{len(images)} images and {len(labels)} labels do not make batches of {list(sizes)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise UsageError(f"labels must be from 0 to {self.classes - 1}, not up to {int(labels.max())}")
        if self._norms and min(sizes) < 2:
            raise UsageError("batch normalisation cannot train on a batch of one image")
        job = self._job(images)
        table = self._array(weights)
        losses = torch.empty(len(sizes), dtype=torch.float64)
        inputs = {
            "labels": labels.to(torch.int64).contiguous(),
            "sizes": torch.tensor(list(sizes), dtype=torch.int64),
            "rates": torch.tensor(list(rates), dtype=torch.float32),
            "seeds": torch.tensor(list(seeds), dtype=torch.int64).to(torch.int32),
            "losses": losses,
            "correct": torch.empty(len(sizes), dtype=torch.int64),
        }
        for name, tensor in inputs.items():
            setattr(job, name, tensor.data_ptr())
        job.weights, job.rule = ctypes.addressof(table), ctypes.addressof(rule)
        job.gradients = gradients.data_ptr() if gradients is not None else None
        job.steps, job.smoothing = len(sizes), smoothing
        self._library.train(self._team, ctypes.byref(job))
        for norm in self._norms:
            norm.num_batches_tracked += len(sizes)  # type: ignore[operator, assignment]  # a tensor
        return losses, inputs["correct"]

    def _job(self, images: Tensor) -> _Job:
        if images.shape[1:] != torch.Size(self.image) or images.dtype not in (torch.uint8, torch.float32):
            raise UsageError(f"images must be uint8 or float32, N x {self.image}, not {images.dtype} {images.shape}")
        job = _Job(images=len(images), scale=self._scale.data_ptr(), shift=self._shift.data_ptr())
        self._images = images.contiguous()  # it must live as long as the job
        setattr(job, "bytes" if images.dtype == torch.uint8 else "floats", self._images.data_ptr())
        self._running = _addresses([b for norm in self._norms for b in (norm.running_mean, norm.running_var)])
        job.buffers = ctypes.addressof(self._running)
        return job

    def _rule(self, optimizer: torch.optim.Optimizer) -> tuple[_Rule, list[_Weight], list[dict[str, Tensor]]]:
        """Return the optimiser's rule, its weights, and those states of it that count steps; states begin as zeros."""
        kind = KINDS.get(type(optimizer))
        if kind is None:
            raise UsageError(f"lanes know SGD, Adam and AdamW, not {type(optimizer).__name__}")
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        shared = optimizer.param_groups[0]
        for options in optimizer.param_groups:
            if wrong := [name for name in UNKNOWN if options.get(name)]:
                raise UsageError(f"lanes know no {', '.join(wrong)}; torch does")
            if wrong := [name for name in SHARED if options.get(name) != shared.get(name)]:
                raise UsageError(f"lanes take one {', '.join(wrong)} for all weights; torch takes one for each group")
        betas = shared.get("betas", (0.0, 0.0))
        names = ADAM if kind > 1 else ("momentum_buffer",) if shared["momentum"] else ()
        rule = _Rule(kind, shared.get("nesterov", False), shared.get("momentum", 0.0), *betas, shared.get("eps", 0.0))
        weights, counting = [], []
        for parameter in self._parameters:
            group = groups.get(id(parameter))
            if group is None or not parameter.requires_grad:
                weights.append(self._weight(parameter, [], {}))
                continue
            state = optimizer.state[parameter]
            for name in names:
                if state.get(name) is None:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            if kind > 1:
                counting.append(state)
                rule.taken = int(state.setdefault("step", torch.zeros((), dtype=torch.float32)))
            weights.append(self._weight(parameter, [state[name] for name in names], group))
        return rule, weights, counting

    @staticmethod
    def _weight(parameter: Tensor, moments: list[Tensor], group: dict[str, float]) -> _Weight:
        first, second = ([_address(moment) for moment in moments] + [None, None])[:2]
        factor, decay = group.get("factor", 1.0), group.get("weight_decay", 0.0)
        return _Weight(_address(parameter), first, second, parameter.numel(), factor, decay, bool(group))

    @staticmethod
    def _array(weights: list[_Weight]) -> ctypes.Array[_Weight]:
        return (_Weight * len(weights))(*weights)


def _address(tensor: object) -> int:
    """Return where a tensor's numbers are; raises UsageError unless they are float32 and one after the other."""
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or not tensor.is_contiguous():
        raise UsageError(
            "lanes take float32 parameters in contiguous memory: net.to(memory_format=torch.contiguous_format)"
        )
    return tensor.data_ptr()


def _addresses(tensors: Sequence[object]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*map(_address, tensors))


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Return the library, whose functions know what they take and return."""
    library.start.restype = ctypes.c_void_p
    library.start.argtypes = [ctypes.c_int]
    library.stop.argtypes = [ctypes.c_void_p]
    for function in (library.train, library.measure, library.predict):
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        function.restype = None
    return library
