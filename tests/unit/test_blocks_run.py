"""Blockwise prediction: one result, however it is cut, killed, resumed or shared."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from block_cases import bytes_of, case, command, make_weights
from engine_cases import HIERARCHY

from lib.blocks.ledger import Ledger, only_driver
from lib.commands import main
from lib.volumes.boxes import whole_box
from lib.volumes.readers.opening import open_source

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = case(tmp_path_factory.mktemp("whole"))
    assert main(command(folder)) == 0
    return folder


def classes(out: Path) -> np.ndarray:
    return np.asarray(open_source(str(out / "classes")))


def test_blocks_have_the_very_values_of_a_run_in_one(whole: Path, tmp_path: Path) -> None:
    one = command(whole, out="one.nii.gz")
    assert main(one) == 0
    assert (classes(whole / "seg.zarr") == np.asarray(open_source(str(whole / "one.nii.gz")))).all()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 7, 3), "uint8"), ((33, 17, 1), "uint8"), ((17, 16, 9), "uint16")]
)
def test_odd_sizes_sections_and_types(
    tmp_path: Path, shape: tuple[int, int, int], dtype: str
) -> None:
    folder = case(tmp_path, shape, dtype)
    assert main(command(folder)) == 0
    assert main(command(folder, out="one.nii.gz")) == 0
    found = classes(folder / "seg.zarr")
    assert found.shape == shape
    assert (found == np.asarray(open_source(str(folder / "one.nii.gz")))).all()


def test_a_box_has_the_values_that_the_whole_has_there(whole: Path) -> None:
    assert main(command(whole, "--box", "9:30,5:26,:8", out="part.zarr")) == 0
    source = open_source(str(whole / "part.zarr" / "classes"))
    assert (source[:] == classes(whole / "seg.zarr")[9:30, 5:26, :8]).all()
    ome = json.loads((whole / "part.zarr" / "classes" / "zarr.json").read_text())
    first = ome["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    assert first["coordinateTransformations"][1]["translation"] == [0.0, 40.0, 72.0]


def test_the_same_command_does_nothing_twice(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (whole / "seg.zarr" / "classes").rglob("*")}
    assert main(command(whole)) == 0
    assert "0 blocks done now" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    folder = case(tmp_path)
    ledger = folder / "seg.zarr" / ".neuropil" / "ledger.jsonl"
    driver = subprocess.Popen(
        [sys.executable, "main.py", *command(folder)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < 3:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    with ledger.open("ab") as file:
        file.write(b'\n{"stage": "predict", "ind')  # a line that a kill cut off
    done = len(Ledger(folder / "seg.zarr").done("predict"))
    assert 0 < done < len(Ledger(whole / "seg.zarr").done("predict"))
    assert main(command(folder)) == 0
    assert bytes_of(folder / "seg.zarr") == bytes_of(whole / "seg.zarr")


def test_other_weights_settings_and_boxes_are_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(whole), "inference.overlap=0.5"]) == 1
    assert "inference.overlap 0.25, now 0.5" in capsys.readouterr().err
    assert main(command(whole, "--box", ":30,:,:")) == 1
    assert "box ((0, 37)" in capsys.readouterr().err
    other = make_weights(tmp_path / "other.pt", seed=1)
    assert main(command(whole, "--weights", str(other))) == 1
    assert "weights_sha256" in capsys.readouterr().err
    assert main([*command(whole), "blocks.tile_bytes=1000000"]) == 0, "no part of the result"


def test_a_folder_of_something_else_is_left_alone(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(whole, out="em.zarr")) == 1
    assert "exists and is no blockwise run" in capsys.readouterr().err


def test_a_second_driver_is_refused(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_driver(whole / "seg.zarr"):
        assert main(command(whole)) == 1
    assert f"another run is at work on it (process {os.getpid()}" in capsys.readouterr().err


def test_an_unreadable_chunk_fails_its_blocks_and_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = case(tmp_path)
    chunk = folder / "em.zarr" / "0" / "3" / "4"
    good = chunk.read_bytes()
    chunk.write_bytes(b"no chunk")
    options = ["inference.overlap=0.0", "blocks.core=[8,8,8]", "inference.window=[8,8,8]"]
    assert main([*command(folder), *options]) == 1
    told = capsys.readouterr().out
    assert "blocks of stage 'predict' failed" in told and "em.zarr" in told
    ledger = Ledger(folder / "seg.zarr")
    assert ledger.failed("predict") and len(ledger.done("predict")) > 10
    assert not ledger.entries["coarsen classes 1"], "later stages wait for all blocks"
    assert main(["status", str(folder / "seg.zarr")]) == 1
    told = capsys.readouterr().out
    assert "failed" in told and "stopped; not whole" in told
    chunk.write_bytes(good)
    assert main([*command(folder), *options]) == 0
    assert main(["status", str(folder / "seg.zarr")]) == 0
    assert capsys.readouterr().out.rstrip().endswith("whole")


def test_a_full_disk_stops_the_run_in_words(tmp_path: Path) -> None:
    folder = case(tmp_path)

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))

    told = subprocess.run(
        [sys.executable, "main.py", *command(folder)], cwd=ROOT, preexec_fn=small,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 1 and "File too large" in told.stderr, told.stderr
    assert main(command(folder)) == 0, "the same command goes on when there is room"


def test_what_is_read_back_has_names_and_coarser_levels(whole: Path) -> None:
    group = json.loads((whole / "seg.zarr" / "classes" / "zarr.json").read_text())
    ome = group["attributes"]["ome"]
    named = {p["label-value"]: p["class"] for p in ome["image-label"]["properties"]}
    assert named[1] == HIERARCHY.class_names[0]
    assert named[101] == f"{HIERARCHY.group_names[0]} (group)"
    assert len(ome["image-label"]["colors"]) == len(named)
    fine = open_source(str(whole / "seg.zarr" / "classes") + ":0")
    coarse = open_source(str(whole / "seg.zarr" / "classes") + ":1")
    assert coarse.shape == (19, 13, 17) and fine.shape == (37, 26, 17)
    assert coarse.read(whole_box(coarse.shape)).any()


def test_impossible_requests_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = case(tmp_path)
    assert main(command(folder, "--box", "0:99,:,:")) == 1
    assert "--box 0:99,:,:; expected a box with voxels inside 0:37,0:26,0:17" in (
        capsys.readouterr().err
    )
    assert main(["status", str(folder / "em.zarr")]) == 1
    assert "no blockwise run" in capsys.readouterr().err
