"""Tensors from untrusted files: no code is executed, and no more memory is used than the file's size justifies.

Errors hold the reason alone: OSError from the system, ValueError for the content.
"""

import math
import os
import pickletools
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from cnnkit.core.files import open_file
from cnnkit.core.limits import MAX_WEIGHT_BYTES
from cnnkit.core.text import from_json, short, some

__all__ = ["TYPES", "is_safetensors", "read_safetensors", "read_torch"]

MAX_HEADER = 1 << 24  # bytes: about 100,000 tensors
MAX_VALUES, MAX_DEPTH = 1 << 22, 100  # of the containers in a file
COPIES, SMALL = 4, 1 << 24  # how often tensors may share bytes; bytes that are always allowed
PICKLES = 5  # in files of torch before 1.6: a magic number, versions, the object, its storages
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
PLAIN = {  # globals that pickles of tensors, numbers and containers need, besides torch's types and storages
    "__builtin__ complex",
    "__builtin__ set",
    "_codecs encode",
    "builtins complex",
    "builtins set",
    "collections Counter",
    "collections OrderedDict",
    "torch Size",
    "torch Tensor",
    "torch device",
    "torch._tensor _rebuild_from_type_v2",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch.nn.parameter Parameter",
}
SPECIAL = {
    "torch._utils _rebuild_meta_tensor_no_storage": "meta tensors, which have no values",
    "torch._utils _rebuild_nested_tensor": "nested tensors",
    "torch._utils _rebuild_qtensor": "quantized tensors",
    "torch._utils _rebuild_sparse_tensor": "sparse tensors",
    "torch._utils _rebuild_wrapper_subclass": "tensors of another class",
}


def read_torch(path: Path, most: int = MAX_WEIGHT_BYTES) -> Any:
    """Return the content of a file of torch.save: tensors (on the CPU), numbers, strings and containers of them.

    Raises OSError if it cannot be read, and ValueError, with the reason alone, for a file of more than `most` bytes,
    one that is corrupt or was not written by torch.save, one that could run code, and tensors larger than the file.
    """
    with open_file(path) as file:
        size = _size(file, most)
        _check_pickles(file, size)
        file.seek(0)
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # torch raises any exception for corrupt bytes
            raise ValueError("corrupt, or not written by torch.save") from error
    _check_values(found, COPIES * size + SMALL)
    return found


def read_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, on the CPU, by name.

    With `shapes`, the file must have exactly these tensors, which is checked before any is read. Raises OSError if it
    cannot be read, and ValueError, with the reason alone, if it is corrupt or tensors differ, with their names.
    """
    with open_file(path) as file:
        header = _header(file)
        if shapes is not None:
            _require_shapes({name: shape for name, (_, shape) in header.items()}, shapes)
        return {name: _tensor(file, TYPES[kind], shape) for name, (kind, shape) in header.items()}


def is_safetensors(path: Path) -> bool:
    """Return whether a file is in the safetensors format, by its first bytes or else its suffix; raises OSError."""
    with open_file(path) as file:
        start = file.read(9)
    return start[8:] == b"{" or (path.suffix.lower() == ".safetensors" and not start.startswith((b"PK", b"\x80")))


def _size(file: BufferedReader, most: int) -> int:
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise ValueError(f"it has {size:,} bytes, more than {most:,}")
    return size


def _header(file: BufferedReader) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read the description of the tensors, and leave the file at the start of their bytes."""
    size = _size(file, MAX_WEIGHT_BYTES)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("truncated, or not safetensors: its header is longer than the file")
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length:,} bytes, more than {MAX_HEADER:,}")
    try:
        rows = dict(from_json(file.read(length).decode()))
        rows.pop("__metadata__", None)
        found = [
            (start, stop, name, str(row["dtype"]), tuple(row["shape"]))
            for name, row in rows.items()
            for start, stop in [row["data_offsets"]]
        ]
        found.sort(key=lambda row: row[:2])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its header is corrupt ({short(error)})") from error
    at = 0
    for start, stop, name, kind, shape in found:
        if kind not in TYPES:
            raise ValueError(f"{short(name)} has the type {short(kind)}; known: {', '.join(TYPES)}")
        whole = all(type(number) is int and number >= 0 for number in (start, stop, *shape))
        if not whole or start != at or stop - start != math.prod(shape) * TYPES[kind].itemsize:
            where = f"{kind} {short(shape)} at {short(start)} to {short(stop)}"
            raise ValueError(f"its header is corrupt: {short(name)} cannot be {where}")
        at = stop
    if at != size - 8 - length:
        raise ValueError(f"truncated or corrupt: its tensors take {at:,} bytes, and it has {size - 8 - length:,}")
    return {name: (kind, shape) for _, _, name, kind, shape in found}


def _require_shapes(found: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    lacks = [name for name in shapes if name not in found]
    besides = [name for name in found if name not in shapes]
    wrong = [
        f"{name} is {found[name]}, not {tuple(shape)}"
        for name, shape in shapes.items()
        if name in found and found[name] != tuple(shape)
    ]
    problems = [
        f"{verb}{some(names)}" for verb, names in (("lacks ", lacks), ("has also ", besides), ("", wrong)) if names
    ]
    if problems:
        raise ValueError("; ".join(problems))


def _tensor(file: BufferedReader, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype)
    if tensor.numel():
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        if file.readinto(content) < len(content):
            raise ValueError("truncated while it was read")
    return tensor


class _Sparing(BufferedReader):
    """A file that refuses large reads, which a zip directory or a pickle could request."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_HEADER:
            raise ValueError(f"the description of its tensors takes more than {MAX_HEADER:,} bytes")
        return super().read(MAX_HEADER if size is None or size < 0 else size)


def _check_pickles(file: BufferedReader, size: int) -> None:
    """Raise ValueError for a file that could run code, or inflate beyond its size."""
    if file.peek(4)[:4] != b"PK\x03\x04":
        for _ in range(PICKLES):
            _check_pickle(file)
        return
    sparing = _Sparing(cast(RawIOBase, file))
    try:
        with zipfile.ZipFile(sparing) as archive:
            records, names = archive.infolist(), archive.namelist()
            root = names[0].partition("/")[0] if names else ""
            if f"{root}/constants.pkl" in names:
                raise ValueError("not opened, because TorchScript could run code; save net.state_dict() instead")
            if f"{root}/data.pkl" not in names:
                raise ValueError("a zip archive, but not one that torch.save wrote")
            _check_records(records, size)
            _check_pickle(BytesIO(archive.read(f"{root}/data.pkl")))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError("truncated or corrupt") from error
    finally:
        sparing.detach()


def _check_records(records: Sequence[zipfile.ZipInfo], size: int) -> None:
    if packed := [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]:
        raise ValueError(f"not written by torch.save: {short(packed[0])} in it is compressed")
    if (total := sum(record.file_size for record in records)) > size:
        raise ValueError(f"corrupt: its records declare {total:,} bytes, and the file has {size:,}")
    if len({record.filename.lower() for record in records}) < len(records):
        raise ValueError("corrupt: two of its records have the same name")


def _check_pickle(file: IO[bytes]) -> None:
    try:
        wanted = [
            "" if opcode.name == "STACK_GLOBAL" else cast(str, argument)  # its names come from other opcodes
            for opcode, argument, _ in pickletools.genops(file)
            if opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST")
        ]
    except (ValueError, MemoryError, OverflowError) as error:
        raise ValueError("corrupt, or not written by torch.save") from error
    for name in wanted:
        if name in SPECIAL:
            raise ValueError(f"it has {SPECIAL[name]}; save net.state_dict() of a plain network instead")
        if not _is_plain(name):
            which = f" (it uses {short(name.replace(' ', '.'))})" if name else ", or is pickled in protocol 4 or 5"
            raise ValueError(f"not opened, because it could run code{which}; save net.state_dict() instead")


def _is_plain(name: str) -> bool:
    module, _, own = name.partition(" ")
    return name in PLAIN or (
        module in ("torch", "torch.cuda", "torch.storage")
        and (own.endswith("Storage") or isinstance(getattr(torch, own, None), torch.dtype))
    )


def _check_values(found: Any, most: int) -> None:
    """Raise ValueError for containers that are nested too deeply, and for tensors that repeat the same bytes."""
    values = declared = 0
    layer = [found]
    for _ in range(MAX_DEPTH):
        declared += sum(value.numel() * value.itemsize for value in layer if isinstance(value, Tensor))
        inner: list[Any] = []
        for value in layer:
            inner += _held(value)
            if values + len(inner) > MAX_VALUES:
                raise ValueError(f"its containers hold more than {MAX_VALUES:,} values")
        values, layer = values + len(inner), inner
        if declared > most:
            raise ValueError(f"its tensors repeat the same bytes: they declare {declared:,}")
        if not layer:
            return
    raise ValueError("its containers are nested too deeply")


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list | tuple | set) else ()
