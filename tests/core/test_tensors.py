"""Tensor files from any source: no code runs, memory is bounded by the file, errors are one line."""

import collections
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cnnkit.core.tensors import MAX_HEADER, TYPES, read_safetensors, read_torch
from cnnkit.nets import create

FORMS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return create("lenet").state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())


@pytest.mark.parametrize("form", FORMS)
def test_torch_saved_tensors_are_read(form: str, state: dict[str, torch.Tensor]) -> None:
    path = Path("caf\udce9.pth")
    optimizer = torch.optim.AdamW(create("lenet").parameters())
    content = {
        "state": state,
        "optimizer": optimizer.state_dict(),
        "others": [1, 2.5, None, "x", True, b"bytes", {1, 2}, (3,), 2**70, 1j],
        "milestones": collections.Counter([3, 3]),
        "dtype": torch.bfloat16,
        "size": torch.Size([1, 2]),
        "parameter": nn.Parameter(torch.ones(2)),
        "shared": (one := torch.arange(6).reshape(2, 3), one.T, one[0]),
        "expanded": torch.ones(1).expand(100),
        "empty": torch.empty(0, 3),
    }
    with path.open("wb") as file:
        torch.save(content, file, **FORMS[form])
    found = read_torch(path)
    assert equal(found["state"], state)
    assert found["others"] == content["others"]
    assert found["milestones"] == {3: 2}
    assert (found["dtype"], found["size"]) == (torch.bfloat16, (1, 2))
    assert [value.tolist() for value in found["shared"]] == [
        [[0, 1, 2], [3, 4, 5]],
        [[0, 3], [1, 4], [2, 5]],
        [0, 1, 2],
    ]
    assert found["expanded"].tolist() == [1] * 100
    assert found["empty"].shape == (0, 3)


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


CODE = {
    "a network": lambda: nn.Linear(2, 2),
    "a call": Code,
    "a call within weights": lambda: {"weight": torch.ones(2), "more": Code()},
    "numpy": lambda: {"weight": torch.ones(2).numpy()},
    "a class": lambda: {"options": Path("x")},
}


@pytest.mark.parametrize("form", [*FORMS, "pickle", "pickle 4"])
@pytest.mark.parametrize("what", CODE)
def test_pickled_code_is_refused(what: str, form: str) -> None:
    if form in FORMS:
        torch.save(CODE[what](), "w.pth", **FORMS[form])
    else:
        Path("w.pth").write_bytes(pickle.dumps(CODE[what](), 4 if form == "pickle 4" else 2))
    with pytest.raises(
        ValueError, match=r"not opened, because it could run code.*; save net\.state_dict\(\)"
    ) as caught:
        read_torch(Path("w.pth"))
    assert "weights_only" not in str(caught.value)
    assert not Path("ran").exists()


def test_torchscript_is_refused() -> None:
    with pytest.warns():
        torch.jit.trace(create("lenet"), torch.zeros(1, 1, 28, 28)).save("w.pth")
    with pytest.raises(ValueError, match="TorchScript could run code"):
        read_torch(Path("w.pth"))


SPECIAL: dict[str, Callable[[], torch.Tensor]] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.empty(3, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SPECIAL)
def test_unusual_tensors_are_refused(kind: str) -> None:
    torch.save({"weight": SPECIAL[kind]()}, "w.pth")
    with pytest.raises(ValueError, match=f"it has {kind} tensors"):
        read_torch(Path("w.pth"))


@pytest.mark.filterwarnings("ignore")
def test_quantized_tensors_are_refused() -> None:
    torch.save({"weight": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "w.pth")
    with pytest.raises(ValueError, match="it has quantized tensors"):
        read_torch(Path("w.pth"))


@pytest.mark.parametrize("form", FORMS)
def test_expanded_tensors_are_refused(form: str) -> None:
    for shape in ((10**12,), (3, 10**12), (10**9,)):
        torch.save({"weight": torch.ones(1).expand(shape)}, "w.pth", **FORMS[form])
        with pytest.raises(ValueError, match=r"its tensors repeat the same bytes: they declare [0-9,]+"):
            read_torch(Path("w.pth"))


def deep(depth: int) -> Any:
    inner: Any = []
    for _ in range(depth):
        inner = [inner]
    return inner


def save_deep(content: Any, path: str, **form: Any) -> None:
    """Save what torch.save's own recursion would not get through."""
    threading.stack_size(512 << 20)
    sys.setrecursionlimit(10**6)
    try:
        thread = threading.Thread(target=lambda: torch.save(content, path, **form))
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(1000)
        threading.stack_size(0)


@pytest.mark.parametrize("form", FORMS)
def test_nested_containers_are_limited(form: str) -> None:
    save_deep({"weight": deep(20_000)}, "w.pth", **FORMS[form])
    with pytest.raises(ValueError, match="nested too deeply"):
        read_torch(Path("w.pth"))
    circle: list[Any] = []
    circle.append(circle)
    laughs: list[Any] = [0, 0]
    for _ in range(50):
        laughs = [laughs, laughs]
    for content, words in ((circle, "nested too deeply"), (laughs, "hold more than 4,194,304 values")):
        torch.save(content, "w.pth", **FORMS[form])
        with pytest.raises(ValueError, match=words):
            read_torch(Path("w.pth"))


def rezip(path: str, target: str, change: Callable[[str, bytes], bytes] = lambda _, x: x, **options: Any) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def test_compressed_zip_is_refused(state: dict[str, torch.Tensor]) -> None:
    torch.save({"weight": torch.zeros(25_000_000)}, "w.pth")
    rezip("w.pth", "bomb.pth", compression=zipfile.ZIP_DEFLATED)
    assert Path("bomb.pth").stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"not written by torch\.save: .* in it is compressed"):
        read_torch(Path("bomb.pth"))


def test_zip_with_overlapping_records_is_refused() -> None:
    """Each of a thousand entries of the directory says that the one large record is its own."""
    torch.save({"weight": torch.zeros(250_000)}, "w.pth")
    content = Path("w.pth").read_bytes()
    end = content.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", content, end + 10)
    directory = content[start : start + size]
    at = directory.index(b"w/data/0") - 46
    entry = directory[at : at + 46 + sum(struct.unpack_from("<HHH", directory, at + 28))]
    many = b"".join(entry.replace(b"w/data/0", f"w/data/{letter}".encode()) for letter in "ABCDEFG")
    tail = struct.pack("<HHII", count + 7, count + 7, size + len(many), start)
    new = content[: start + size] + many + content[end : end + 8] + tail + content[end + 20 :]
    Path("bomb.pth").write_bytes(new)
    with pytest.raises(ValueError, match=r"its records declare [0-9,]+ bytes, and the file has|corrupt"):
        read_torch(Path("bomb.pth"))


def test_duplicate_record_names_are_refused(state: dict[str, torch.Tensor]) -> None:
    torch.save(state, "w.pth")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile("w.pth", "a") as archive:
        archive.writestr("w/data.pkl", b"")
    with pytest.raises(ValueError, match="two of its records have the same name"):
        read_torch(Path("w.pth"))


def test_zip_of_other_content_is_refused() -> None:
    with zipfile.ZipFile("w.pth", "w") as archive:
        archive.writestr("photo.txt", b"x")
    with pytest.raises(ValueError, match=r"a zip archive, but not one that torch\.save wrote"):
        read_torch(Path("w.pth"))
    zipfile.ZipFile("w.pth", "w").close()
    with pytest.raises(ValueError, match=r"corrupt, or not written by torch\.save"):
        read_torch(Path("w.pth"))


def test_tensor_metadata_is_limited() -> None:
    torch.save({"text": "x" * (MAX_HEADER + 1)}, "w.pth")
    with pytest.raises(ValueError, match="the description of its tensors takes more than 16,777,216 bytes"):
        read_torch(Path("w.pth"))


@pytest.mark.parametrize("form", FORMS)
def test_storage_larger_than_file_is_refused(form: str, state: dict[str, torch.Tensor]) -> None:
    torch.save({"weight": torch.arange(4.0)}, "w.pth", **FORMS[form])
    small, large = b"cpuq\x06K\x04", b"cpuq\x06J" + struct.pack("<i", 2**31 - 1)
    if form == "zip":
        rezip("w.pth", "bomb.pth", lambda _, content: content.replace(small, large))
    else:
        Path("bomb.pth").write_bytes(Path("w.pth").read_bytes().replace(small, large))
    assert Path("bomb.pth").read_bytes() != Path("w.pth").read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"corrupt, or not written by torch\.save"):
        read_torch(Path("bomb.pth"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # of 8 GB


@pytest.mark.parametrize("form", FORMS)
def test_truncated_or_corrupt_files_are_refused(form: str, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, "w.pth", **FORMS[form])
    whole = Path("w.pth").read_bytes()
    draw = torch.Generator().manual_seed(0)
    for number in range(200):
        place, byte = (int(torch.randint(most, (), generator=draw)) for most in (len(whole), 256))
        place = place % 4000 if number % 2 else place  # where it is described
        cut = number % 4 == 0
        Path("w.pth").write_bytes(whole[:place] if cut else whole[:place] + bytes([byte]) + whole[place + 1 :])
        reason = ""
        try:
            read_torch(Path("w.pth"))
        except ValueError as error:
            reason = str(error)
        assert bool(reason) or not cut
        assert "\n" not in reason
        assert "weights_only" not in reason


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"<html>", b"\x80\x02.", b"\x80\x02}.", bytes(5000)])
def test_non_tensor_file_is_refused(content: bytes) -> None:
    Path("w.pth").write_bytes(content)
    with pytest.raises(ValueError, match="corrupt"):
        read_torch(Path("w.pth"))
    with pytest.raises(ValueError, match=r"truncated|corrupt"):
        read_safetensors(Path("w.pth"))


@pytest.mark.parametrize("read", [read_torch, read_safetensors])
def test_only_regular_nonempty_files_are_read(read: Callable[[Path], Any]) -> None:
    os.mkfifo("pipe")
    for place, kind in (("pipe", OSError), ("/dev/zero", OSError), (".", IsADirectoryError), ("no", FileNotFoundError)):
        with pytest.raises(kind):
            read(Path(place))
    with Path("huge").open("wb") as file:
        file.truncate(1 << 40)  # nothing but a length
    with pytest.raises(ValueError, match="it has 1,099,511,627,776 bytes, more than 4,294,967,296"):
        read(Path("huge"))


def test_size_limit_is_configurable() -> None:
    torch.save(torch.zeros(1000), "w.pth")
    assert read_torch(Path("w.pth"), 10_000).equal(torch.zeros(1000))
    with pytest.raises(ValueError, match="more than 1,000"):
        read_torch(Path("w.pth"), 1000)


# safetensors


def test_safetensors_files_are_read() -> None:
    draw = torch.Generator().manual_seed(0)
    values = {name: torch.randint(0, 2, (3, 4), generator=draw).to(dtype) for name, dtype in TYPES.items()}
    values |= {"caf\u00e9": torch.empty(0, 3), "scalar": torch.tensor(3)}
    path = Path("caf\udce9.safetensors")
    save_file(values, "w.safetensors", {"format": "pt"})
    Path("w.safetensors").rename(path)
    found = read_safetensors(path)
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in values.items()}
    assert all(value.float().equal(values[name].float()) for name, value in found.items() if name != "C64")
    assert found["C64"].equal(values["C64"])
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in values.items()}


def test_shapes_are_checked_before_reading(state: dict[str, torch.Tensor]) -> None:
    save_file(state, "w.safetensors")
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert equal(read_safetensors(Path("w.safetensors"), shapes), state)
    others = shapes | {"head.bias": (11,), "new": (2,)}
    del others["conv1.0.weight"]
    with pytest.raises(ValueError, match=r"lacks new; has also conv1\.0\.weight; head\.bias is \(10,\), not \(11,\)"):
        read_safetensors(Path("w.safetensors"), others)
    with pytest.raises(ValueError, match=r"lacks 0, 1, 2 and 7 more"):
        read_safetensors(Path("w.safetensors"), shapes | {str(number): () for number in range(10)})


def header(rows: Any, data: bytes = b"", length: int | None = None) -> None:
    text = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    Path("w.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def row(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


WRONG: dict[str, tuple[Any, ...]] = {
    "a header that is longer than the file": (b"{}", b"", 1000),
    "a header without end": (b"{}", b"", 2**64 - 1),
    "junk": (b"\xff" * 100,),
    "no JSON": (b"{",),
    "a list": ([1],),
    "a number": (b"1",),
    "nested JSON": (b"[" * 100_000,),
    "a name that is too long for a line": ({"a" * 10**6: row()["a"]}, bytes(7)),
    "a type that is too long for a line": (row(dtype="F" * 10**6), bytes(8)),
    "a row that is none": ({"a": 1}, b""),
    "no type": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "another type": (row(dtype="F33"), bytes(8)),
    "a type that is none": (row(dtype=[1]), bytes(8)),
    "a shape of text": (row(shape=["2"]), bytes(8)),
    "a shape of nothing": (row(shape=None), bytes(8)),
    "a negative shape": (row(shape=[-1, -2]), bytes(8)),
    "a fraction": (row(shape=[2.0]), bytes(8)),
    "true": (row(shape=[True, 2]), bytes(8)),
    "more than there is": (row(shape=[10**12], data_offsets=[0, 4 * 10**12]), bytes(8)),
    "a shape that overflows": (row(shape=[2**62, 4]), bytes(8)),
    "offsets of another size": (row(data_offsets=[0, 4]), bytes(8)),
    "three offsets": (row(data_offsets=[0, 8, 8]), bytes(8)),
    "one offset": (row(data_offsets=[0]), bytes(8)),
    "offsets of text": (row(data_offsets=["0", "8"]), bytes(8)),
    "mixed offsets": (row(data_offsets=[0, "8"]), bytes(8)),
    "a hole": (row(data_offsets=[4, 12]), bytes(12)),
    "the same bytes twice": (row() | {"b": row()["a"]}, bytes(8)),
    "bytes left over": (row(), bytes(9)),
    "bytes that lack": (row(), bytes(7)),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_headers_are_refused(what: str) -> None:
    header(*WRONG[what])
    with pytest.raises(ValueError, match=r"header|truncated|corrupt|has the type") as caught:
        read_safetensors(Path("w.safetensors"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_junk_header_is_not_parsed() -> None:
    header(b"[" * (100 << 20))
    with pytest.raises(ValueError, match="its header has 104,857,600 bytes, more than 16,777,216"):
        read_safetensors(Path("w.safetensors"))


def test_zip_of_a_million_entries_allocates_no_memory() -> None:
    """The directory alone is larger than all that may describe tensors; measured in a process of its own."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0) + b"w/data.x"
    count = 1_000_000
    directory = entry * count
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 4, 0)
    Path("w.pth").write_bytes(b"PK\x03\x04" + directory + end)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom cnnkit.core.tensors import read_torch\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_torch(Path('w.pth'))\nexcept ValueError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words, kilobytes = done.stdout.splitlines()
    assert "the description of its tensors takes more than" in words
    assert int(kilobytes) < 100_000
