"""Full disks, limits, faults and kills: an import leaves no half-written item."""

from __future__ import annotations

import argparse
import errno
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from import_cases import SHAPE, H, refusals
from volume_files import SIZE_NM, hdf5, volume

from lib.volumes import import_plan
from lib.volumes.study import Study

REPO = Path(__file__).parents[2]


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


def test_too_little_space_is_told_before_anything_is_written(tmp_path, refused, monkeypatch):
    path = hdf5(tmp_path / "v.h5", volume())
    monkeypatch.setattr(import_plan.shutil, "disk_usage", lambda p: argparse.Namespace(free=100))
    assert "MiB free; expected" in refused(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_disk_that_fills_up(tmp_path, refused, monkeypatch, code, after):
    from lib.volumes import atomic

    ids = volume(SHAPE, np.uint32)
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids")
    real = atomic.StagedFiles.create
    writes = []

    def create(self, target):
        file = real(self, target)
        write = file.write

        class Full:
            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                writes.append(1)
                if len(writes) > after:
                    raise OSError(code, "No space left on device")
                return write(data)

        return Full()

    monkeypatch.setattr(atomic.StagedFiles, "create", create)
    err = refused(path)
    assert "the disk filled up while writing" in err and "nothing was left behind" in err


def test_a_disk_that_is_full_when_flushed(tmp_path, refused, monkeypatch):
    from lib.volumes import atomic

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    assert "the disk filled up" in refused(hdf5(tmp_path / "v.h5", volume()))


def test_a_file_size_limit_in_a_process_of_its_own(tmp_path):
    """The real thing: the operating system refuses to let the image grow."""
    path = hdf5(tmp_path / "v.h5", volume((200, 200, 30)))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    code = (
        "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from lib.commands import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "import", path, "--studies", str(tmp_path / "study")],
        cwd=REPO, preexec_fn=limit, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "the disk filled up" in done.stderr, done.stderr
    assert not [p for p in (tmp_path / "study").rglob("*") if p.is_file()]


def test_a_fault_in_the_second_item_keeps_the_first_whole(tmp_path, refused):
    label = np.full(SHAPE, 2, np.uint8)
    label[0, 0, 7] = 99
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    err = refused(
        path, "--semantic", hdf5(tmp_path / "l.h5", label),
        "--split", "train=:,:,:5", "--split", "val=:,:,6:",
        keep=["labels/final/v-train.nii.gz", "v-train.neuropil.json", "v-train.nii"],
    )  # fmt: skip
    assert "class value 99 at voxel (x, y, z) (0, 0, 7)" in err
    item = Study(tmp_path / "study", H).item("v-train")
    assert (item.open_image() == volume(SHAPE)[:, :, :5]).all()


def test_a_killed_import_leaves_no_item_and_its_leftovers_go(tmp_path):
    """SIGKILL in the middle: nothing shows, and the next import clears up."""
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    code = (
        "import os, signal, sys\n"
        "from lib.volumes import writing\n"
        "from lib.labels.hierarchy import load_hierarchy\n"
        "from lib.volumes.study import Study\n"
        "from lib.volumes.readers.opening import open_source\n"
        "die = lambda n: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Study(sys.argv[2], load_hierarchy()).add_item("
        "'v', open_source(sys.argv[1]), (1, 1, 1), progress=die)\n"
    )
    root = tmp_path / "study"
    done = subprocess.run([sys.executable, "-c", code, path, str(root)], cwd=REPO)
    assert done.returncode == -9
    study = Study(root, H)
    assert study.items() == [] and list(root.glob(".v.nii.*.part"))
    study.add_item("w", volume(SHAPE), SIZE_NM)
    assert not list(root.glob(".*.part"))
