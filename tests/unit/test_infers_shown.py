"""What viewers are shown: names and values, objects in few values, files."""

import nibabel as nib
import nrrd
import numpy as np
import pytest
from fastapi import HTTPException
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.configs.settings import LabelSettings
from lib.infers.clicks import clicked_class, starting_mask, viewer_points
from lib.infers.objects_shown import named_segments, object_names, spread_values
from lib.infers.viewer_labels import ViewerLabels
from lib.infers.writer import result_dtype, result_extension, write_label
from lib.labels.hierarchy import flat_hierarchy, load_hierarchy
from lib.labels.segment_names import parse_segment_name
from lib.server.regions import region

HIERARCHY = load_hierarchy()


@pytest.mark.parametrize("hierarchy", [HIERARCHY, flat_hierarchy(2), flat_hierarchy(7)])
def test_viewer_values_run_from_one_without_gaps(hierarchy):
    labels = ViewerLabels(hierarchy)
    assert list(labels.names.values()) == list(range(1, len(labels.names) + 1))
    for i, name in enumerate(hierarchy.class_names):
        assert labels.lut[i + 1] == labels.names[name] == i + 1
    for k, name in enumerate(hierarchy.group_names):
        value = labels.lut[101 + k]
        shown = next(n for n, v in labels.names.items() if v == value)
        assert hierarchy.set_named(shown) == hierarchy.set_named(name)
    assert labels.lut[0] == labels.lut[255] == 0
    assert labels.segments[-1] == "uncertain"


def _blobs(seed: int, shape: tuple[int, int, int], count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, shape, (count, 3))
    grid = np.stack(np.indices(shape), -1)[..., None, :]
    return (np.abs(grid - seeds).sum(-1).argmin(-1) + 1).astype(np.uint32)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(20, 255))
def test_touching_objects_get_different_values(seed: int, count: int, limit: int):
    ids = _blobs(seed, (12, 12, 6), count)
    shown, clashes = spread_values(ids, limit)
    assert shown.max() <= limit
    assert (shown > 0).all()
    seen = 0
    for axis in range(3):
        one = np.moveaxis(ids, axis, 0)
        two = np.moveaxis(shown, axis, 0)
        border = one[1:] != one[:-1]
        seen += int((two[1:] == two[:-1])[border].sum())
    assert (seen == 0) or clashes > 0


def test_hundreds_of_objects_never_wrap():
    ids = np.arange(1, 1001, dtype=np.uint32).reshape(10, 10, 10)
    shown, clashes = spread_values(ids)
    assert shown.min() >= 1
    assert clashes == 0
    assert len(np.unique(shown)) > 100, "and many values tell them apart"


def test_named_segments_keep_the_largest_and_their_names():
    ids = np.zeros((10, 10, 4), np.uint32)
    ids[:2], ids[3:4], ids[5:9] = 1, 2, 3
    classes = np.array([0, 4, 11, 3], np.uint8)  # axon, mitochondria, dendrite
    names = object_names(classes, HIERARCHY)
    assert names == ["axon 1", "mitochondria 2", "dendrite 3"]
    for name in names:
        assert parse_segment_name(name, HIERARCHY).object_number == int(name.split()[-1])
    segments, shown = named_segments(ids, classes, HIERARCHY, 2)
    assert [s.name for s in segments] == ["axon 1", "dendrite 3"]
    assert [s.value for s in segments] == [1, 2]
    assert set(np.unique(shown)) == {0, 1, 2}
    assert segments[1].extent == (5, 8, 0, 9, 0, 3)
    assert segments[0].color != segments[1].color


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint16, np.uint8])
@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd", ".seg.nrrd"])
def test_labels_of_any_type_are_written_on_their_grid(dtype, extension: str, tmp_path):
    """The stock writer fails on 64-bit labels."""
    labels = np.arange(24).reshape(2, 3, 4).astype(dtype)
    affine = np.array([[0, 8.0, 0, 5], [-8.0, 0, 0, 7], [0, 0, 40.0, -9], [0, 0, 0, 1]])
    path = write_label(labels, affine, extension)
    if extension.endswith("nrrd"):
        found, header = nrrd.read(path)
        placed = np.eye(4)
        placed[:3, :3], placed[:3, 3] = header["space directions"].T, header["space origin"]
        placed = np.diag([-1, -1, 1, 1]) @ placed
    else:
        image = nib.load(path)
        found, placed = np.asanyarray(image.dataobj), image.affine
    np.testing.assert_array_equal(found, labels)
    assert found.dtype.kind == "u"
    np.testing.assert_allclose(placed, affine)


def test_result_types_and_extensions():
    assert result_dtype({}, 255) is np.uint8
    assert result_dtype({}, 256) is np.uint16
    assert result_dtype({}, 70_000) is np.uint32
    assert result_dtype({"result_dtype": "uint16"}, 5) is np.uint16
    assert result_extension({}) == ".nii.gz"
    for bad in ({"result_dtype": "int64"}, {"result_dtype": 8}):
        with pytest.raises(HTTPException):
            result_dtype(bad, 1)
    with pytest.raises(HTTPException):
        result_extension({"result_extension": "/../x"})


def test_clicks_are_voxels():
    assert viewer_points(None, "foreground") == []
    assert viewer_points([[1.4, 2.6, 3]], "foreground") == [[1, 3, 3]]
    for bad in ("x", [1, 2, 3], [[1, 2]], [["a", 1, 2]], [[float("nan"), 1, 2]], [[True, 1, 2]]):
        with pytest.raises(HTTPException):
            viewer_points(bad, "foreground")


def test_a_segment_name_feeds_the_class_it_names():
    labels = LabelSettings(segment_names={"mito": "mitochondria"})
    axon = HIERARCHY.class_names.index("axon")
    assert clicked_class("axon", HIERARCHY, labels) == axon
    assert clicked_class("Axon_17", HIERARCHY, labels) == axon
    assert clicked_class("mito", HIERARCHY, labels) == HIERARCHY.class_names.index("mitochondria")
    for name in ("organelle", "my thing", "", None, 3, "uncertain", "background"):
        assert clicked_class(name, HIERARCHY, labels) == -1


def test_regions_have_ends_in_any_order_and_are_cut_to_the_image():
    assert region([5, 2, 0, 99, -3, 1], (10, 10, 4)) == ((2, 6), (0, 10), (0, 2))
    assert region(None, (10, 10, 4)) is None
    assert region([], (10, 10, 4)) is None
    for bad in ([1, 2], "x", [1, 2, 3, 4, 5, "6"], [50, 60, 0, 1, 0, 1]):
        with pytest.raises(HTTPException):
            region(bad, (10, 10, 4))


def test_starting_masks_fit_the_image(tmp_path):
    mask = np.zeros((4, 5, 3), np.uint8)
    mask[1, 2, 1] = 1
    raw = tmp_path / "m.bin"
    raw.write_bytes(mask.tobytes(order="F"))
    request = {"starting_mask": str(raw), "starting_mask_raw": True}
    np.testing.assert_array_equal(starting_mask(request, (4, 5, 3)), mask)
    with pytest.raises(HTTPException):
        starting_mask(request, (4, 5, 4))
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "m.nii")
    request = {"starting_mask": str(tmp_path / "m.nii")}
    np.testing.assert_array_equal(starting_mask(request, (4, 5, 3)), mask)
    with pytest.raises(HTTPException):
        starting_mask(request, (5, 4, 3))
    assert starting_mask({}, (4, 5, 3)) is None
