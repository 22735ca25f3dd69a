"""Items that are boxes of a larger volume: no voxel is copied, everything else is as usual."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from block_cases import SPARSE, make_volume, sparse
from engine_cases import HIERARCHY

from lib.commands import main
from lib.volumes.contrast import intensity_window
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_file, open_source
from lib.volumes.readers.region import RegionSource, volume_contrast
from lib.volumes.regions import region_at, region_of, regions_in, shown_path, write_shown
from lib.volumes.study import Study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """One item that is a box of a volume."""
    make_volume(tmp_path / "em.zarr")
    words = ["import", str(tmp_path / "em.zarr"), "--studies", str(tmp_path / "s"), "--lazy"]
    assert main([*words, "--crop", "5:30,4:20,2:15", "--id", "part"]) == 0
    return Study(tmp_path / "s", HIERARCHY)


def test_a_region_reads_its_box_and_holds_no_voxels(study: Study, tmp_path: Path) -> None:
    item = study.item("part")
    whole = open_source(str(tmp_path / "em.zarr"))
    assert item.shape == (25, 16, 13) and item.voxel_size_nm == (8.0, 8.0, 40.0)
    assert (item.open_image()[3:9, :, 1:4] == whole[8:14, 4:20, 3:6]).all()
    assert item.record.origin_voxels == (5, 4, 2)
    assert sum(p.stat().st_size for p in study.root.rglob("*") if p.is_file()) < 2000


def test_all_regions_share_the_window_of_the_volume(study: Study, tmp_path: Path) -> None:
    image = study.item("part").open_image()
    assert intensity_window(image) == volume_contrast(open_source(str(tmp_path / "em.zarr")))


def test_what_lies_around_a_region_can_be_read(study: Study, tmp_path: Path) -> None:
    region = study.item("part").source
    assert isinstance(region, RegionSource)
    wide, inner = region.around((4, 10, 3))
    assert wide.box == ((1, 34), (0, 26), (0, 17)) and inner == ((4, 29), (4, 20), (2, 15))
    assert (wide[4:29, 4:20, 2:15] == region[:]).all()


def test_labels_of_a_region_go_back_to_its_place(study: Study, tmp_path: Path) -> None:
    item = study.item("part")
    folder = study.root / "labels" / "instance"
    folder.mkdir(parents=True)
    ids = np.arange(25 * 16 * 13, dtype=np.uint32).reshape(item.shape) + 1
    nib.save(nib.Nifti1Image(ids, np.eye(4)), folder / "part.nii.gz")
    target = tmp_path / "labels.zarr"
    words = ["export", "part", str(target), "--label", "instance", "--studies", str(study.root)]
    assert main(words) == 0
    back = open_source(f"{target}:volumes/labels/neuron_ids")
    assert back.shape == (37, 26, 17)
    assert (back[5:30, 4:20, 2:15] == ids).all()


def test_a_viewer_gets_the_voxels_when_it_asks(study: Study) -> None:
    item = study.item("part")
    assert not shown_path(item.image_path).exists()
    path = write_shown(item.image_path)
    shown = open_file(path)
    assert (shown[:] == item.open_image()[:]).all()
    assert shown.info.voxel_size_nm == (8.0, 8.0, 40.0)
    assert [i.id for i in study.items()] == ["part"], "it is no item of its own"
    with pytest.raises(VolumeError, match="too many to send"):
        write_shown(_touched(item.image_path), most_voxels=100)


def _touched(path: Path) -> Path:
    path.write_bytes(path.read_bytes())
    return path


def test_a_sparse_volume_has_the_window_of_what_is_stored(tmp_path: Path) -> None:
    part = sparse(tmp_path / "big.zarr")
    source = open_source(str(tmp_path / "big.zarr"))
    stored = source.stored_boxes(100)
    assert len(stored) == 8 and stored[0] == ((1984, 2048), (1152, 1216), (576, 608))
    low, high = volume_contrast(source)
    assert 45 <= low <= np.percentile(part, 5) and np.percentile(part, 95) <= high <= 200


def test_items_are_made_around_regions_of_a_volume(tmp_path: Path) -> None:
    part = sparse(tmp_path / "big.zarr")
    words = ["import", str(tmp_path / "big.zarr"), "--studies", str(tmp_path / "s"), "--lazy"]
    assert main(words) == 0
    study = Study(tmp_path / "s", HIERARCHY)
    volume = study.item("big")
    assert volume.shape == SPARSE
    box = ((2000, 2064), (1200, 1264), (600, 616))
    made, inside = region_at(study, volume, box, (128, 128, 32))
    assert made.id == "big-x1968y1168z592" and made.shape == (128, 128, 32)
    assert inside == ((32, 96), (32, 96), (8, 24))
    assert (made.open_image()[32:96, 32:96, 8:24] == part[:, :, :16]).all()
    again, _ = region_at(study, volume, box, (128, 128, 32))
    assert again.id == made.id, "the one that is there"
    ((found, place),) = regions_in(study, volume)
    assert found.id == made.id and place == ((1968, 2096), (1168, 1296), (592, 624))
    assert region_of(made) is not None and made.record.extra["region_of"] == "big"


def test_a_lazy_import_says_nothing_of_voxels_that_nobody_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse(tmp_path / "big.zarr")
    words = ["import", str(tmp_path / "big.zarr"), "--studies", str(tmp_path / "s"), "--lazy"]
    assert main(words) == 0
    assert "every voxel of the image" not in capsys.readouterr().err


def test_regions_that_cannot_be_are_refused(study: Study, tmp_path: Path) -> None:
    words = ["import", str(tmp_path / "em.zarr"), "--studies", str(study.root), "--lazy"]
    assert main([*words, "--semantic", "x.h5", "--id", "b"]) == 1
    assert main([*words, "--crop", ":30,:20,:15", "--id", "part"]) == 1
    broken = study.root / "c.region.json"
    broken.write_text('{"source": "em.zarr"}')
    with pytest.raises(VolumeError, match="not a readable region"):
        open_file(broken)
    broken.write_text(
        f'{{"source": "{tmp_path}/em.zarr", "box": [[0, 99], [0, 5], [0, 5]], '
        '"voxel_size_nm": [8, 8, 40], "contrast": [0, 255]}'
    )
    with pytest.raises(VolumeError, match="0:99"):
        open_file(broken)
