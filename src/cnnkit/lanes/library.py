"""The compiled library of a network: its functions, and the structures of cpp/job.hpp, which it shares with Python."""

import ctypes
from collections.abc import Mapping

from cnnkit.core.compiler import load
from cnnkit.core.errors import CnnkitError

__all__ = ["Job", "Optimizer", "Parameter", "load_library"]


def _fields(kind: type, *names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names]


class Optimizer(ctypes.Structure):
    """The settings of an optimiser that all parameters share."""

    _fields_ = [
        *_fields(ctypes.c_int32, "kind", "nesterov"),
        *_fields(ctypes.c_float, "momentum", "beta1", "beta2", "eps"),
        *_fields(ctypes.c_int64, "steps_taken"),
    ]


class Parameter(ctypes.Structure):
    """A parameter, the optimiser's state for it, and its settings."""

    _fields_ = [
        *_fields(ctypes.c_void_p, "value", "moment1", "moment2"),
        *_fields(ctypes.c_int64, "size"),
        *_fields(ctypes.c_float, "lr_factor", "weight_decay"),
        *_fields(ctypes.c_int32, "learns"),
    ]


class Job(ctypes.Structure):
    """The inputs and outputs of a call."""

    _fields_ = [
        *_fields(ctypes.c_void_p, "bytes", "floats", "labels", "scale", "shift", "sizes", "rates", "seeds"),
        *_fields(ctypes.c_void_p, "parameters", "statistics", "optimizer"),
        *_fields(ctypes.c_void_p, "losses", "correct", "gradients", "logits"),
        *_fields(ctypes.c_int64, "steps", "images"),
        *_fields(ctypes.c_float, "smoothing"),
    ]


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "size_of_job": Job,
    "size_of_parameter": Parameter,
    "size_of_optimizer": Optimizer,
}
CALLS = ("train", "measure", "predict")


def load_library(source: Mapping[str, str], flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Return the library compiled from C++ files; raises CnnkitError if its structures have other sizes than here."""
    library = load("the network for lanes", source, ("lanes", "start", "stop", *CALLS, *STRUCTURES), flags)
    for name, structure in STRUCTURES.items():
        function = getattr(library, name)
        function.restype = ctypes.c_int64
        here, there = ctypes.sizeof(structure), function()
        if here != there:
            found = f"{structure.__name__} has {there} bytes in the compiled library and {here} in Python"
            raise CnnkitError(f"lanes: {found}; reinstall cnnkit, or use --engine torch")
    library.start.restype = ctypes.c_void_p
    library.start.argtypes = [ctypes.c_int]
    library.stop.argtypes = [ctypes.c_void_p]
    for name in CALLS:
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        function.restype = None
    return library
