"""`main.py view`: what it opens, and what it refuses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import neuroglancer
import pytest
import requests
from block_cases import case, command
from view_cases import desk_of_one

from lib.commands import main
from lib.server.viewing import add_view_parser, open_view


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    """Neuroglancer's server ends with each test."""
    yield
    neuroglancer.stop()
    neuroglancer.set_server_bind_address()


def parsed(*words: str) -> argparse.Namespace:
    """Options of `view`."""
    parser = argparse.ArgumentParser()
    add_view_parser(parser.add_subparsers())
    return parser.parse_args(["view", *words])


def test_a_volume_is_shown_with_what_was_predicted_of_it(tmp_path: Path) -> None:
    folder = case(tmp_path)
    assert main(command(folder, "--box", "8:32,4:20,0:16", task="both")) == 0
    source, out = str(folder / "em.zarr"), str(folder / "seg.zarr")
    windows, viewer = open_view(parsed(source, "--prediction", out))
    state = viewer.viewer.state
    assert "predicted classes" in state.layers and "objects" not in state.layers
    assert viewer.properties["predicted-objects"]["inline"]["ids"]
    files = viewer.folder("classes", folder / "seg.zarr" / "classes").removeprefix("zarr://")
    told = requests.get(f"{files}zarr.json", timeout=10).json()
    assert "multiscales" in told["attributes"]["ome"]
    folder_of_classes = folder / "seg.zarr" / "classes"
    shard = next(p for p in (folder_of_classes / "0" / "c").rglob("*") if p.is_file())
    where = shard.relative_to(folder_of_classes)
    part = requests.get(f"{files}{where}", headers={"Range": "bytes=2-9"}, timeout=10)
    assert part.status_code == 206 and part.content == shard.read_bytes()[2:10]
    for wrong in ("../.neuropil/plan.json", "%2e%2e/.neuropil/plan.json", "0", "none"):
        assert requests.get(files + wrong, timeout=10).status_code in (403, 404)
    other = files.replace(viewer.token, "0" * 40)
    assert requests.get(f"{other}zarr.json", timeout=10).status_code == 404
    windows.close()


def test_an_item_is_shown_by_its_name(tmp_path: Path) -> None:
    desk_of_one(tmp_path)
    windows, viewer = open_view(parsed("one", "--studies", str(tmp_path)))
    assert "objects" in viewer.viewer.state.layers and viewer.url.startswith("http://127.0.0.1:")
    windows.close()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["two", "--studies", "STUDY"], "no item 'two'; items: one"),
        (["one", "--studies", "STUDY/none"], "no such folder"),
        (["STUDY/none.zarr"], "no such file or folder"),
        (["STUDY/one.nii", "--prediction", "STUDY"], "no blockwise prediction"),
    ],
)
def test_what_cannot_be_shown_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    desk_of_one(tmp_path)
    assert main(["view", *(w.replace("STUDY", str(tmp_path)) for w in words)]) == 1
    assert told in capsys.readouterr().err
