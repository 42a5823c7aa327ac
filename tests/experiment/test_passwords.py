"""Passwords in the URLs of data: stored by the run's config.toml alone, and needed to read the data."""

import json
import shutil
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnkit
from cnnkit.core.errors import UsageError
from cnnkit.data import load_dataset
from cnnkit.data.shards.pack import pack_folder
from cnnkit.deploy import read_bundle
from cnnkit.experiment.passwords import with_passwords
from cnnkit.report import list_runs
from helpers.cli import Cli, one_line
from helpers.shards import write_folder
from helpers.webserver import protected_folder

PASSWORD = "s3cret"
SECRETS = (PASSWORD.encode(), b"bWU6czNjcmV0")  # and as it is sent
QUICK = ("--epochs", 1, "--batch-size", 128, "--plan", "off")
RUN = Path("runs/lenet-shards-1")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    pack_folder(write_folder(root / "photos"), root / "shards", images_per_shard=60, progress=False)
    return root


@pytest.fixture
def root(packed: Path) -> Iterator[str]:
    """The URL of the server's root, with the user's name and password."""
    with protected_folder(packed, "me", PASSWORD) as url:
        yield url


@pytest.fixture
def url(root: str) -> str:
    return f"{root}/shards/shards.json"


def masked(url: str) -> str:
    return url.replace(PASSWORD, "***")


def holders(folder: Path) -> set[str]:
    """The files whose content or path has the password."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder))
        for path in files
        if any(secret in path.read_bytes() + bytes(path) for secret in SECRETS)
    }


def own_labels(folder: Path) -> list[int]:
    """The labels of the test images of the network in a run folder or bundle."""
    return cnnkit.evaluate(folder, progress=False).predictions.labels.tolist()


def test_only_config_toml_has_the_password_and_only_the_user_reads_it(cli: Cli, url: str, tmp_path: Path) -> None:
    others = ("--test-data", url, "--validation-data", url, "--tensorboard")
    result = cli("train", "lenet", "--data", url, *others, *QUICK)
    assert result.code == 0, result.err
    assert PASSWORD not in result.out + result.err
    assert masked(url) in (RUN / "log.txt").read_text()
    assert holders(tmp_path) == {str(RUN / "config.toml")}
    assert stat.S_IMODE((RUN / "config.toml").stat().st_mode) == 0o600
    saved = json.loads((RUN / "best/config.json").read_text())
    assert (saved["data"], saved["test_data"]) == (masked(url), masked(url))
    assert read_bundle(RUN)[1].data == masked(url)
    settings = tomllib.loads((RUN / "config.toml").read_text())
    assert {settings[name] for name in ("data", "validation_data", "test_data")} == {url}


def test_settings_without_password_have_the_usual_mode(cli: Cli) -> None:
    assert cli("train", "lenet", *QUICK).code == 0
    folder = Path("runs/lenet-digits-1")
    modes = {(folder / name).stat().st_mode for name in ("config.toml", "environment.json")}
    assert len(modes) == 1


def test_run_is_resumed_and_trained_again_with_its_password(cli: Cli, url: str) -> None:
    assert cli("train", "lenet", "--data", url, *QUICK).code == 0
    assert cli("train", "--resume", RUN, "--epochs", 2).code == 0
    assert "epoch 2/2" in (RUN / "log.txt").read_text()
    assert cli("train", "-c", RUN / "config.toml").code == 0
    assert cli("train", "--resume", RUN, "--data", url, "--epochs", 3).code == 0
    assert holders(Path("runs")) == {"lenet-shards-1/config.toml", "lenet-shards-2/config.toml"}
    again = cnnkit.fit("lenet", url, epochs=1, batch_size=128, plan="off", progress=False)
    assert holders(again.path) == {"config.toml"}
    assert PASSWORD not in repr(again) + again._repr_html_() + repr(again.model)


def test_run_folder_finds_its_test_images_and_a_copied_bundle_needs_their_url(
    cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("train", "lenet", "--data", url, "--test-data", url, *QUICK).code == 0
    wanted = load_dataset(url, progress=False).test
    assert wanted is not None
    for folder in (RUN, RUN / "best"):
        assert own_labels(folder) == wanted.labels.tolist()
    assert holders(RUN) == {"config.toml"}
    shutil.copytree(RUN / "best", "shared")
    with pytest.raises(UsageError, match="bundles do not keep passwords"):
        own_labels(Path("shared"))
    result = cli("evaluate", "shared")
    one_line(result, 2, f"{masked(url)}: bundles do not keep passwords; pass the URL with its password: --data URL")
    result = cli("evaluate", "shared", "--data", url, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["images"] == len(wanted)
    assert PASSWORD not in result.out + result.err
    monkeypatch.chdir(RUN / "best")
    assert own_labels(Path()) == wanted.labels.tolist()


def test_password_of_other_data_is_not_used(cli: Cli, url: str) -> None:
    assert cli("train", "lenet", "--data", url, *QUICK).code == 0
    config = RUN / "config.toml"
    config.write_text(config.read_text().replace("shards.json", "other.json"))
    assert with_passwords(read_bundle(RUN)[1], RUN / "best").data == masked(url)
    assert with_passwords(read_bundle(RUN)[1], None).data == masked(url)


def test_bundle_of_an_earlier_version_is_read_and_loses_its_password(cli: Cli, url: str) -> None:
    assert cli("train", "lenet", "--data", url, *QUICK).code == 0
    config = RUN / "best/config.json"
    config.write_text(config.read_text().replace("***", PASSWORD))
    shutil.copytree(RUN / "best", "earlier")
    assert cli("evaluate", "earlier").code == 0
    assert cli("train", "--resume", RUN, "--epochs", 2).code == 0
    assert holders(RUN) == {"config.toml"}


def test_names_of_data_and_runs_have_no_password_and_no_query(packed: Path, cli: Cli, url: str) -> None:
    assert load_dataset(url, progress=False).name == "shards"
    shard = url.replace("shards.json", "train-00000.tar?key=s3cret")
    assert load_dataset(shard, progress=False).name == "shards"
    with protected_folder(packed / "shards", "me", PASSWORD) as top:
        assert cli("train", "lenet", "--data", f"{top}/shards.json", *QUICK).code == 0
        assert cli("evaluate", "runs/lenet-127.0.0.1-1", "--data", f"{top}/shards.json").code == 0
        assert load_dataset(f"{top}/train-00000.tar", progress=False).name == "127.0.0.1"
    shown = cli("runs", "--json").out + cli("runs").out
    assert "lenet-127.0.0.1-1" in shown
    assert PASSWORD not in shown
    assert [run.data for run in list_runs(Path("runs"))] == [f"{masked(top)}/shards.json"]


def test_study_has_no_password(cli: Cli, url: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    fixed = f'net = "lenet"\nepochs = 1\nbatch_size = 128\nplan = "off"\ndata = "{url}"\n'
    Path("a.toml").write_text(f"{fixed}[space]\nlr = [0.01, 0.001]\n")
    Path("b.toml").write_text(f'{fixed.replace("data =", "validation_data =")}[space]\ndata = ["{url}"]\n')
    for name in ("a", "b"):
        result = cli("sweep", "-c", f"{name}.toml", "--trials", 1, "--json")
        assert result.code == 0, result.err
        assert PASSWORD not in result.out + result.err
        assert cli("sweep", "-c", f"{name}.toml", "--trials", 2).code == 0, "the study continues"
    configs = {f"runs/{name}/lenet-shards-{number}/config.toml" for name in ("a", "b") for number in (1, 2)}
    assert holders(tmp_path) == configs | {"a.toml", "b.toml"}
