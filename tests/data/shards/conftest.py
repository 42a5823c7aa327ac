"""A folder of images and its shards for the tests of this folder, written once."""

import shutil
from pathlib import Path

import pytest

from cnnkit.data.shards.pack import pack_folder
from helpers.shards import write_folder


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("originals")
    pack_folder(write_folder(place / "photos"), place / "shards", images_per_shard=12, progress=False)
    return place


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "photos", tmp_path / "photos")


@pytest.fixture
def shards(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "shards", tmp_path / "shards")
