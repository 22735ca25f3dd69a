"""The generator's promises: deterministic, all classes, plausible shares, whole objects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lib.synthetic.classes import CELLS, ORGANELLES, Tissue
from lib.synthetic.generate import SyntheticVolume, generate

cc3d = pytest.importorskip("cc3d")

GEOMETRIES = {
    "anisotropic": ((160, 160, 40), (8.0, 8.0, 40.0)),
    "isotropic": ((112, 112, 112), (10.0, 10.0, 10.0)),
}


@pytest.fixture(scope="module", params=GEOMETRIES)
def volume(request: pytest.FixtureRequest) -> SyntheticVolume:
    """A volume without uncertain patches."""
    shape, voxel = GEOMETRIES[request.param]
    return generate(shape, voxel, 4, uncertain_share=0.0)


def test_shapes_and_types(volume: SyntheticVolume) -> None:
    assert volume.image.dtype == np.uint8
    assert volume.fine.dtype == np.int8
    assert volume.instance.dtype == np.int64
    assert volume.image.shape == volume.fine.shape == volume.instance.shape


def test_every_class_occurs_with_a_plausible_share(volume: SyntheticVolume) -> None:
    share = np.bincount(volume.fine.reshape(-1), minlength=12) / volume.fine.size
    bounds = {
        Tissue.EXTRACELLULAR: (0.06, 0.35),
        Tissue.TEAR: (0.0003, 0.04),
        Tissue.DENDRITE: (0.06, 0.45),
        Tissue.AXON: (0.15, 0.55),
        Tissue.SOMA: (0.002, 0.15),
        Tissue.GLIA: (0.01, 0.2),
        Tissue.MYELIN: (0.008, 0.12),
        Tissue.INNER_TONGUE: (0.0003, 0.02),
        Tissue.OUTER_TONGUE: (0.0003, 0.02),
        Tissue.NUCLEUS: (0.002, 0.12),
        Tissue.MITOCHONDRIA: (0.015, 0.14),
        Tissue.FAT_GLOBULE: (0.0001, 0.02),
    }
    for tissue, (low, high) in bounds.items():
        assert low < share[tissue] < high, (tissue.name, share[tissue])


def test_each_id_is_one_connected_object_of_one_class(volume: SyntheticVolume) -> None:
    ids, fine = volume.instance.reshape(-1), volume.fine.reshape(-1)
    pairs = np.unique(np.stack([ids, fine]), axis=1)
    objects = pairs[0][pairs[0] > 0]
    assert len(objects) == len(set(objects.tolist()))
    assert objects.tolist() == list(range(1, int(ids.max()) + 1))
    no_object = (Tissue.EXTRACELLULAR, Tissue.TEAR)
    assert set(pairs[1][pairs[0] == 0].tolist()) <= set(no_object)
    assert not np.isin(fine[ids > 0], no_object).any()
    _, count = cc3d.connected_components(
        volume.instance.astype(np.uint32), connectivity=26, return_N=True
    )
    assert count == ids.max()


def test_organelles_lie_inside_cells(volume: SyntheticVolume) -> None:
    # In the plane of the sections: a cell may be thinner than a section above an organelle.
    cross = ndimage.generate_binary_structure(3, 1)
    cross[:, :, [0, 2]] = False
    organelle = np.isin(volume.fine, ORGANELLES)
    shell = ndimage.binary_dilation(organelle, cross) & ~organelle
    inside = np.isin(volume.fine[shell], CELLS)
    assert inside.mean() > 0.98
    nucleus = volume.fine == Tissue.NUCLEUS
    around = ndimage.binary_dilation(nucleus, cross) & ~nucleus
    assert np.isin(volume.fine[around], (Tissue.SOMA, *ORGANELLES)).mean() > 0.95


def test_the_image_shows_the_classes(volume: SyntheticVolume) -> None:
    grey = {t: float(np.median(volume.image[volume.fine == t])) for t in Tissue}
    assert grey[Tissue.TEAR] > grey[Tissue.EXTRACELLULAR] > grey[Tissue.DENDRITE]
    assert grey[Tissue.DENDRITE] > grey[Tissue.AXON] > grey[Tissue.MITOCHONDRIA]
    assert grey[Tissue.MITOCHONDRIA] > grey[Tissue.MYELIN]


def test_same_arguments_same_volume_other_seed_another() -> None:
    args = ((48, 40, 10), (8.0, 8.0, 40.0))
    one, again, other = generate(*args, 1), generate(*args, 1), generate(*args, 2)
    for name in ("image", "fine", "instance"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))


def test_uncertain_patches_are_unknown_in_both_labels() -> None:
    volume = generate((64, 64, 16), (8.0, 8.0, 40.0), 5, uncertain_share=0.1)
    unknown = volume.fine == -1
    assert 0.05 < unknown.mean() < 0.15
    assert np.array_equal(unknown, volume.instance == -1)


@pytest.mark.parametrize("shape", [(64, 48, 1), (40, 40, 40), (32, 200, 6)])
def test_unusual_shapes(shape: tuple[int, int, int]) -> None:
    volume = generate(shape, (6.0, 6.0, 30.0), 0)
    assert volume.image.shape == shape
    assert len(np.unique(volume.fine)) >= 5


@pytest.mark.parametrize(
    ("shape", "voxel", "match"),
    [
        ((8, 64, 4), (8.0, 8.0, 40.0), "16 x 16 x 1"),
        ((64, 64, 4), (8.0, 0.0, 40.0), "above 0"),
    ],
)
def test_bad_arguments_are_named(
    shape: tuple[int, int, int], voxel: tuple[float, float, float], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        generate(shape, voxel, 0)
