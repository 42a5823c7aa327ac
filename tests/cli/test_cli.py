"""The command line: every command and every documented error."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnkit.data import read_image
from helpers.cli import ROOT, Cli, Result, one_line, start

DIGITS = sorted((ROOT / "examples/digits").iterdir())
QUICK = ("--epochs", 2, "--batch-size", 256)


@pytest.fixture
def run(cli: Cli) -> Path:
    assert cli("train", "lenet", *QUICK).code == 0
    return Path("runs/lenet-digits-1")


def test_run_folder_has_the_documented_files(run: Path) -> None:
    [predictions] = [path.name for path in run.glob("predictions-validation-*.npz")]
    assert {path.name for path in run.iterdir()} == {
        "config.toml", "environment.json", "split.json", "metrics.jsonl", "log.txt", "last.ckpt", "last.1.ckpt", "best",
        "plan.json", ".lock", predictions,
    }  # fmt: skip
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["net"] == "lenet"
    assert config["batch_size"] == 256
    assert config["image_size"] == 28
    assert config["optimizer"] == "adamw"
    assert json.loads((run / "environment.json").read_text())["torch"] == torch.__version__
    assert len(json.loads((run / "split.json").read_text())["validation"]) == 142
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert "epoch 2/2" in (run / "log.txt").read_text()


def test_run_from_saved_config_is_bit_exact_and_never_overwrites(run: Path, cli: Cli) -> None:
    assert cli("train", "-c", run / "config.toml").code == 0
    again = run.with_name("lenet-digits-2")
    for name in ("split.json", "best/model.safetensors"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    assert cli("train", "-c", run / "config.toml", "--seed", 1).code == 0
    other = run.with_name("lenet-digits-3")
    assert (other / "best/model.safetensors").read_bytes() != (run / "best/model.safetensors").read_bytes()


def test_flags_override_file_and_file_overrides_recipe(cli: Cli) -> None:
    Path("my.toml").write_text('net = "lenet_bn"\nrecipe = "chapter"\nepochs = 9\nlr = 0.5\n')
    assert cli("train", "-c", "my.toml", "--epochs", 1, "--model-kwargs.norm", "from_scratch").code == 0
    config = tomllib.loads(Path("runs/lenet_bn-digits-1/config.toml").read_text())
    assert (config["optimizer"], config["epochs"], config["lr"], config["batch_size"]) == ("sgd", 1, 0.5, 32)
    assert config["model_kwargs"] == {"norm": "from_scratch"}
    Path("my.toml").write_text('net = "lenet_bn"\nepochs = 1\n[model_kwargs]\nnorm = "from_scratch"\ndecay = 0.5\n')
    assert cli("train", "-c", "my.toml", "--model-kwargs.decay", 0.7).code == 0
    config = tomllib.loads(Path("runs/lenet_bn-digits-2/config.toml").read_text())
    assert config["model_kwargs"] == {"norm": "from_scratch", "decay": 0.7}


def test_single_left_over_image_joins_a_batch(cli: Cli) -> None:
    for batch_size in (647, 1294):  # of 1,295 images
        assert cli("train", "lenet_bn", "--epochs", 1, "--batch-size", batch_size).code == 0


def test_pixel_settings_reach_the_bundle(cli: Cli) -> None:
    def statistics(*flags: str) -> tuple[float, float]:
        assert cli("train", "lenet", *QUICK, *flags, "--output", "-".join(["o", *flags])).code == 0
        config = json.loads(Path("-".join(["o", *flags]), "lenet-digits-1/best/config.json").read_text())
        return config["mean"][0], config["std"][0]

    assert statistics("--no-standardize") == (0, 1)
    assert statistics("--raw-pixels") == (0, 1 / 255)
    mean, std = statistics()
    assert 0.2 < mean < 0.4
    assert 0.3 < std < 0.5


def test_evaluate_covers_the_whole_test_set(run: Path, cli: Cli) -> None:
    report = json.loads(cli("evaluate", run, "--json").out)
    confusion = torch.tensor(report["confusion"])
    assert report["images"] == confusion.sum() == 360
    assert report["accuracy"] == confusion.diagonal().sum() / 360
    assert [row["support"] for row in report["classes"]] == confusion.sum(1).tolist()
    text = cli("evaluate", run / "best").out
    assert f"accuracy {report['accuracy']:.2f} (" in text
    assert "precision" in text


def test_predict_names_classes_best_first(run: Path, cli: Cli) -> None:
    answers = json.loads(cli("predict", run, *DIGITS, "--top", 4, "--json").out)
    assert [answer["image"] for answer in answers] == [str(path) for path in DIGITS]
    for answer in answers:
        chances = [row["probability"] for row in answer["predictions"]]
        assert len(chances) == 4
        assert chances == sorted(chances, reverse=True)
    lines = cli("predict", run, *DIGITS).out.splitlines()
    assert [line.split()[0] for line in lines] == [str(path) for path in DIGITS]
    assert lines[0].count("%") == 3


def test_predict_reports_corrupt_image_and_continues(run: Path, cli: Cli) -> None:
    Path("bad.png").write_text("no picture")
    result = cli("predict", run, DIGITS[0], "bad.png", DIGITS[1], "--json")
    assert result.code == 3
    first, last, bad = json.loads(result.out)
    assert "predictions" in first
    assert "predictions" in last
    assert "not an image" in bad["error"]
    assert "bad.png: not an image" in result.err
    assert "1 of 3 images" in result.err


def test_nets_and_anatomy_print_tables(cli: Cli) -> None:
    rows = {row["net"]: row for row in json.loads(cli("nets", "--json").out)}
    assert rows["lenet"]["parameters"] == 44_426
    assert rows["lenet"]["section"] == "5.5"
    assert "44,426" in cli("nets", "lenet").out
    report = json.loads(cli("anatomy", "lenet_bn", "--json").out)
    assert (report["params"], report["statistics"]) == (44_878, 452)
    assert [stage["name"] for stage in report["stages"]] == ["conv1", "conv2", "dense", "head"]
    assert report["stages"][1]["receptive"]["size"] == [16, 16]
    text = cli("anatomy", "lenet").out
    for words in ("6 x 12 x 12", "16 x 16", "281,640", "2 MaxPool2d"):
        assert words in text
    bigger = json.loads(cli("anatomy", "lenet", "--input", "3x32x40", "--num-classes", 4, "--json").out)
    assert bigger["stages"][1]["output"] == [16, 5, 7]
    assert bigger["stages"][-1]["output"] == [4]


@pytest.mark.parametrize("kernel", ["sobel-x", "sobel-y", "edge", "blur", "sharpen", "[[1,-1]]"])
def test_filter_writes_the_feature_map(cli: Cli, kernel: str) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(colour).save("photo.png")
    result = cli("filter", "photo.png", "--kernel", kernel)
    assert result.code == 0, result.err
    name = "photo-kernel.png" if kernel.startswith("[") else f"photo-{kernel}.png"
    assert name in result.out
    feature_map = read_image(Path(name))
    assert feature_map.shape == ((3, 12, 15) if kernel.startswith("[") else (3, 10, 14))
    assert feature_map.float().std() > 1


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_narrow_terminal_truncates_no_number(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out, _ = start("anatomy", "lenet").communicate(timeout=60)
    for number in ("281,640", "44,426", "153,600", "24 x 24"):
        assert number in out


def test_filter_on_a_step_finds_the_edge(cli: Cli) -> None:
    step = np.zeros((6, 8), np.uint16)
    step[:, 4:] = 40_000
    Image.fromarray(step).save("deep.png")
    assert cli("filter", "deep.png", "--kernel", "[[1,-1]]", "--output", "edge.png").code == 0
    assert read_image(Path("edge.png")).tolist() == [[[0, 0, 0, 255, 0, 0, 0]] * 6]
    assert (
        cli("filter", "deep.png", "--kernel", "blur", "--padding", "same", "--stride", 2, "--output", "b.png").code == 0
    )
    assert read_image(Path("b.png")).shape == (1, 3, 4)


# --- bad input: one clear line and the documented code


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train"], 2, ["no network given", "cnnkit nets"]),
        (["train", "lenett"], 2, ["unknown network 'lenett'", "did you mean 'lenet'"]),
        (["trian", "lenet"], 2, ['"trian"', '"train"']),
        (["train", "lenet", "--data", "fashion-mnits"], 2, ["unknown data set", "did you mean 'fashion-mnist'"]),
        (["train", "lenet", "--optimizer", "adma"], 2, ["unknown optimizer 'adma'", "did you mean 'adam'", "sgd"]),
        (["train", "lenet", "--recipe", "chapte"], 2, ["unknown recipe 'chapte'", "did you mean 'chapter'"]),
        (["train", "lenet", "--schedule", "linear"], 2, ["unknown schedule 'linear'", "one-cycle"]),
        (["train", "lenet", "--epocs", "1"], 2, ["--epocs", "--epochs"]),
        (["train", "lenet", "--epochs", "0"], 2, ["epochs must be at least 1, not 0"]),
        (["train", "lenet", "--lr", "fast"], 2, ["lr must be a number, not 'fast'"]),
        (["train", "lenet", "--validation", "1"], 2, ["validation must be less than 1, not 1"]),
        (["train", "lenet", "--device", "gpu"], 2, ["unknown device 'gpu'; use --device auto or cpu"]),
        (["train", "lenet", "--image-size", "8"], 2, ["lenet needs images of at least 16 x 16, not 8 x 8"]),
        (["train", "lenet", "--model-kwargs.norm", "x"], 2, ["unknown argument of lenet 'norm'"]),
        (["train", "lenet_bn", "--model-kwargs.norm", "3"], 2, ["unknown norm 3"]),
        (["train", "lenet_bn", "--model-kwargs.decay", "5"], 2, ["decay must be between 0 and 1, not 5"]),
        (["train", "lenet_bn", "--model-kwargs.epsilon", "x"], 2, ["epsilon must be above 0, not 'x'"]),
        (["train", "lenet_bn", "--model-kwargs.num_classes", "3"], 2, ["num_classes is set by the data"]),
        (
            ["train", "lenet_bn", "--model-kwargs.norm", "[1]"],
            2,
            ["model_kwargs.norm must be a number", "a word, not [1]"],
        ),
        (["train", "lenet_bn", "--batch-size", "1"], 2, ["batch_size must be at least 2"]),
        (
            ["train", "lenet", "--batch-size", "9" * 20],
            2,
            ["batch_size must be an integer from 1 to 2,147,483,647, or auto, not"],
        ),
        (["train", "lenet", "--stage-lr.head", "-1"], 2, ["stage_lr.head must be at least 0, not -1"]),
        (["train", "lenet", "--lr", "inf"], 2, ["lr must be at most 1e+38, not inf"]),
        (["train", "lenet", "--validation", "0.9999"], 2, ["validation 0.9999 leaves no training images"]),
        (["train", "lenet", "--device", "meta"], 2, ["unavailable device 'meta'"]),
        (
            ["train", "-c", "recipe.toml", "--recipe", "default"],
            2,
            ["recipe.toml has recipe 'chapter'", "remove one"],
        ),
        (["train", "lenet", "-c", "nowhere.toml"], 2, ["nowhere.toml: cannot be read"]),
        (["train", "lenet", "-c", "bad.toml"], 2, ["bad.toml: not a TOML file"]),
        (["train", "lenet", "-c", "odd.toml"], 2, ["unknown setting 'epoch'", "did you mean 'epochs'"]),
        (["train", "--resume", "empty"], 2, ["empty is not a run folder", "config.toml"]),
        (["train", "--resume", "empty"], 2, ["empty is not a run folder"]),
        (["train", "lenet", "--data", "mnist", "--data-dir", "empty"], 3, ["no complete set of IDX files", "empty"]),
        (["train", "lenet", "--data", "mnist", "--data-dir", "corrupt"], 3, ["train-images-idx3-ubyte", "not an IDX"]),
        (["train", "lenet", "--output", "file/runs"], 1, ["cannot write file/runs", "another folder"]),
        (["train", "lenet", "--output", "/proc/runs"], 1, ["cannot write /proc/runs", "another folder"]),
        (["evaluate", "nowhere"], 2, ["nowhere: no such folder"]),
        (["evaluate", "empty"], 2, ["empty is not a run folder or a bundle"]),
        (["evaluate", "file"], 2, ["file is not a run folder or a bundle"]),
        (["predict", "empty", "x.png"], 2, ["empty is not a run folder or a bundle"]),
        (["predict", "empty"], 2, ["no image given"]),
        (["nets", "yolo*"], 2, ["unknown network 'yolo*'"]),
        (["anatomy", "lenett"], 2, ["did you mean 'lenet'"]),
        (["anatomy", "lenet", "--input", "28"], 2, ["--input takes channels x height x width", "'28'"]),
        (["anatomy", "lenet", "--input", "1x15x28"], 2, ["at least 16 x 16, not 15 x 28"]),
        (["filter", "nowhere.png", "--kernel", "blur"], 3, ["nowhere.png: no such file"]),
        (["filter", "nowhere.png", "--kernel", "blur", "--output", "small.png"], 3, ["nowhere.png: no such file"]),
        (
            ["filter", "small.png", "--kernel", "[[1]]", "--output", "no/x.png"],
            1,
            ["no/x.png: No such file or directory"],
        ),
        (["filter", "file", "--kernel", "blur"], 3, ["file: not an image"]),
        (["filter", "small.png", "--kernel", "blurr"], 2, ["unknown kernel 'blurr'", "did you mean 'blur'"]),
        (["filter", "small.png", "--kernel", "edge"], 2, ["window of 3 x 3 is larger", "2 x 2"]),
        (["filter", "small.png", "--kernel", "[[1]]", "--stride", "0"], 2, ["stride must be", "not 0"]),
        (["filter", "small.png", "--kernel", "[[1]]", "--padding", "x"], 2, ["--padding", '"x"', "valid, same"]),
        (["filter", "small.png", "--kernel", "[[1]]", "--padding", "-1"], 2, ["padding must be", "not -1"]),
        (["filter", "small.png", "--kernel", "[[1]]", "--output", "small.png"], 2, ["is the input image"]),
        (["filter", "small.png"], 2, ["--kernel"]),
    ],
)
def test_bad_input_is_one_clear_line(cli: Cli, arguments: list[str], code: int, words: list[str]) -> None:
    Path("empty").mkdir()
    Path("corrupt").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        Path("corrupt", f"{name}-ubyte").write_text("<html>")
    Path("file").write_text("text")
    Path("bad.toml").write_text("epochs = ")
    Path("odd.toml").write_text("epoch = 3")
    Path("recipe.toml").write_text('net = "lenet"\nrecipe = "chapter"')
    Image.new("L", (2, 2)).save("small.png")
    one_line(cli(*arguments), code, *words)
    assert not Path("runs").exists(), "a refused run leaves no folder behind"


def test_corrupt_run_is_one_clear_line(run: Path, cli: Cli) -> None:
    model = run / "best/model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    one_line(cli("evaluate", run), 1, "model.safetensors: corrupt")
    one_line(cli("predict", run, DIGITS[0]), 1, "model.safetensors: corrupt")
    for checkpoint in run.glob("*.ckpt"):
        checkpoint.write_bytes(b"?")
    one_line(
        cli("train", "--resume", run),
        1,
        "last.ckpt: not a usable checkpoint: corrupt",
        "start a new run from the best weights: --weights ",
    )


def test_nan_loss_is_one_clear_line(cli: Cli) -> None:
    result = cli("train", "lenet", "--optimizer", "sgd", "--lr", "1e38", "--schedule", "constant")
    one_line(result, 1, "try an lr below 1e+38", "last.ckpt")


def test_evaluate_requires_the_same_classes(run: Path, cli: Cli) -> None:
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not here")
    one_line(cli("evaluate", run, "--data", "fashion-mnist"), 3, "Ankle boot")


def test_resume_of_finished_run_repeats_nothing(run: Path, cli: Cli) -> None:
    before = (run / "metrics.jsonl").read_text()
    assert cli("train", "--resume", run).code == 0
    assert (run / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("arguments", [["anatomy", "lenet"], ["nets", "--json"], ["train", "lenet", "--epochs", "12"]])
def test_closed_pipe_changes_nothing(arguments: list[str]) -> None:
    with start(*arguments) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()  # before anything is printed
        assert process.stderr.read() == ""
    assert process.returncode == 0
    if arguments[0] == "train":
        assert len(Path("runs/lenet-digits-1/metrics.jsonl").read_text().splitlines()) == 12
        assert "finished 12 epochs; best weights: " in Path("runs/lenet-digits-1/log.txt").read_text()


def test_full_disk_at_output_is_one_clear_line() -> None:
    for verb in (["nets"], ["nets", "--json"]):
        command = [sys.executable, "-m", "cnnkit", *verb]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        one_line(Result(done.returncode, "", done.stderr), 1, "No space left")


def test_output_has_no_colour_in_pipe_and_a_bar_in_terminal() -> None:
    import os
    import pty

    out, _ = start("nets").communicate(timeout=60)
    assert "lenet" in out
    assert "\x1b" not in out
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnkit", "train", "lenet", "--epochs", "3"],
        stdout=child, stderr=child, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the terminal is closed
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "━" in text
    assert "epoch 3/3" in text
