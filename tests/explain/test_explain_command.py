"""`cnnkit explain`: its files, its numbers, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnkit import load
from cnnkit.data import read_image, write_image
from cnnkit.deploy import Bundle, save_bundle
from cnnkit.explain import METHODS, attribute, sanity
from cnnkit.nets import create
from helpers.cli import Cli, one_line

RUN = Path("runs/mine")


@pytest.fixture
def photos() -> list[Path]:
    """A run of two classes, and two photos with the same name in different folders."""
    card = Bundle(
        net="lenet_bn", arguments={}, in_channels=3, image_size=(24, 20), classes=("a", "[red]b"), mean=(0.5,),
        std=(0.25,), data="digits", data_dir=None, split_sha256="", metrics={}, versions={},
    )  # fmt: skip
    save_bundle(RUN / "best", create("lenet_bn", in_channels=3, num_classes=2, image_size=(24, 20)), card)
    paths = [Path("one/photo.png"), Path("two/PHOTO.png")]
    for path, size in zip(paths, ((40, 30), (20, 70)), strict=True):
        path.parent.mkdir()
        write_image(path, torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    return paths


def test_each_image_gets_overlay_heat_maps_and_numbers(cli: Cli, photos: list[Path]) -> None:
    methods = [word for name in METHODS for word in ("--method", name)]
    result = cli("explain", RUN, *photos, *methods, "--output", "out", "--device", "cpu", "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["images"]
    stems = ["photo", "PHOTO-2"]
    whats = [f"{name}.{suffix}" for name in METHODS for suffix in ("png", "npy")] + ["features.png", "explain.json"]
    assert {path.name for path in Path("out").iterdir()} == {f"{stem}-{what}" for stem in stems for what in whats}
    model = load(RUN, device="cpu")
    for path, stem, row in zip(photos, stems, rows, strict=True):
        assert json.loads(Path(f"out/{stem}-explain.json").read_text()) == row
        assert row["image"] == str(path)
        for method, found in zip(METHODS, row["attributions"], strict=True):
            expected = attribute(model, path, method)
            files = found.pop("files")
            assert found == json.loads(json.dumps(expected.to_dict()))
            np.testing.assert_array_equal(np.load(files["heat"], allow_pickle=False), expected.heat)
            overlay = read_image(Path(files["overlay"]))
            np.testing.assert_array_equal(overlay.permute(1, 2, 0).numpy(), np.asarray(expected.overlay()))
            assert overlay.shape == read_image(path).shape
    assert cli("features", RUN, photos[0], "--device", "cpu").code == 0
    assert read_image(Path("out/photo-features.png")).equal(read_image(Path("photo-features.png")))


def test_one_line_says_what_was_found(cli: Cli, photos: list[Path]) -> None:
    result = cli(
        "explain", RUN, "--class", "[red]b", "--layer", "conv1.0", "--method", "gradcam", photos[0], "--device", "cpu"
    )
    assert result.code == 0, result.err
    found = attribute(load(RUN, device="cpu"), photos[0], target="[red]b", layer="conv1.0")
    assert found.strongest is not None
    row, column = found.strongest
    assert result.out == (
        f"one/photo.png: [red]b {found.probability:.1%}; gradcam at conv1.0 strongest at row {row}, column {column}: "
        "photo-gradcam.png\n"
    )


def test_unreadable_images_are_reported_and_the_others_explained(cli: Cli, photos: list[Path]) -> None:
    Path("broken.png").write_bytes(photos[0].read_bytes()[:90])
    result = cli("explain", RUN, photos[0], "broken.png", "nowhere.png", photos[1], "--json", "--device", "cpu")
    assert result.code == 3
    lines = result.err.splitlines()
    assert lines[0].startswith("cnnkit: broken.png: ")
    assert lines[1:] == ["cnnkit: nowhere.png: no such file", "cnnkit: 2 of 4 images could not be read"]
    rows = json.loads(result.out)["images"]
    assert ["error" in row for row in rows] == [False, True, True, False]
    assert Path("photo-gradcam.png").exists()
    assert not Path("broken-gradcam.png").exists()


def test_sanity_is_printed_with_its_verdict(cli: Cli, photos: list[Path]) -> None:
    words = ("explain", RUN, "one", "two", "--sanity", "--layer", "conv2", "--device", "cpu")
    result = cli(*words)
    assert result.code == 0, result.err
    found = sanity(load(RUN, device="cpu"), [str(path) for path in photos], layer="conv2")
    lines = result.out.splitlines()[2:]
    assert lines[0] == "gradcam: correlation with the original heat, randomised from the last layer down to"
    assert [line.split() for line in lines[1:-1]] == [[layer, f"{value:.2f}"] for layer, value in found.layers]
    assert lines[-1] == found.verdict
    checked = json.loads(cli(*words, "--json").out)["sanity"]
    assert checked == [found.to_dict()]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["no image given; write cnnkit explain RUN IMAGE..."]),
        (["one/photo.png", "--method", "gradcan"], 2, ["unknown method 'gradcan'; did you mean 'gradcam'?"]),
        (["one/photo.png", "--class", "[red]c"], 2, ["unknown class '[red]c'; did you mean '[red]b'?"]),
        (["one/photo.png", "--layer", "conv3"], 2, ["unknown layer 'conv3'", "did you mean"]),
        (["one/photo.png", "--layer", "conv1", "--method", "occlusion"], 2, ["--layer is for gradcam"]),
        (["x-gradcam.png", "x.png"], 2, ["x-gradcam.png is an input image; choose another --output"]),
        (["empty"], 3, ["the folder has no images"]),
    ],
)
def test_bad_input_is_one_line(cli: Cli, photos: list[Path], arguments: list[str], code: int, words: list[str]) -> None:
    Path("empty").mkdir()
    for name in ("x-gradcam.png", "x.png"):
        Path(name).write_bytes(photos[0].read_bytes())
    before = sorted(Path().rglob("*"))
    one_line(cli("explain", RUN, *arguments, "--device", "cpu"), code, *words)
    assert sorted(Path().rglob("*")) == before
