"""Axes are those that a file names, whatever their case and place; sizes belong to them."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import h5py
import mrcfile
import nrrd
import numpy as np
import pytest
from volume_files import SIZE_NM, chunked, volume

from lib.volumes.errors import VolumeError
from lib.volumes.readers.axes import along, read_names, space_axes
from lib.volumes.readers.opening import open_source

ORDERS = ["".join(p) for p in permutations("xyz")]
OFFSET_NM = (8.0, 50.0, 80.0)


def turned(data, order):
    """The array with its axes in an order, and sizes and offsets along them."""
    axes = ["xyz".index(a) for a in order]
    return data.transpose(axes), [SIZE_NM[a] for a in axes], [OFFSET_NM[a] for a in axes]


def attributes(folder: Path, name: str, more: dict) -> None:
    path = folder / name
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**data, **more}))


def _zarr2(folder, data, order, key):
    array, size, offset = turned(data, order)
    chunked("zarr", folder / "v.zarr", array, {"chunks": [4, 4, 4]})
    more = {key: [a.upper() for a in order], "resolution": size, "offset": offset}
    attributes(folder / "v.zarr", ".zattrs", more)
    return folder / "v.zarr"


def _zarr3(folder, data, order):
    array, size, offset = turned(data, order)
    chunked("zarr3", folder / "v.zarr", array, {"dimension_names": list(order.upper())})
    more = {"attributes": {"voxel_size": size, "offset": offset, "units": ["nm"] * 3}}
    attributes(folder / "v.zarr", "zarr.json", more)
    return folder / "v.zarr"


def _n5_axes(folder, data, order):
    array, size, offset = turned(data, order)
    chunked("n5", folder / "v.n5", array, {"blockSize": [4, 4, 4]})
    more = {"axes": list(order), "resolution": size, "offset": offset}
    attributes(folder / "v.n5", "attributes.json", more)
    return folder / "v.n5"


def _n5_cosem(folder, data, order):
    """`transform` names its axes in the order of Python, the reverse of N5's."""
    array, size, offset = turned(data, order)
    chunked("n5", folder / "v.n5", array, {"blockSize": [4, 4, 4]})
    transform = {"axes": list(order[::-1]), "scale": size[::-1], "translate": offset[::-1],
                 "units": ["nm"] * 3, "ordering": "C"}  # fmt: skip
    attributes(folder / "v.n5", "attributes.json", {"transform": transform})
    return folder / "v.n5"


def _hdf5_labels(folder, data, order):
    array, size, offset = turned(data, order)
    with h5py.File(folder / "v.h5", "w") as file:
        made = file.create_dataset("raw", data=array)
        for dim, name in zip(made.dims, order, strict=True):
            dim.label = name
        made.attrs["resolution"], made.attrs["offset"] = size, offset
    return folder / "v.h5"


def _hdf5_ilastik(folder, data, order):
    array, size, offset = turned(data, order)
    with h5py.File(folder / "v.h5", "w") as file:
        made = file.create_dataset("exported_data", data=array[..., None])
        keys = [{"key": a, "typeFlags": 2, "resolution": 0} for a in [*order, "c"]]
        made.attrs["axistags"] = json.dumps({"axes": keys})
        made.attrs["element_size_um"] = [s / 1e3 for s in size]
        made.attrs["offset"] = offset
    return folder / "v.h5"


def _ome(folder, data, order):
    array, size, offset = turned(data, order)
    root = folder / "v.zarr"
    chunked("zarr", root / "0", array[None, None], {"chunks": [1, 1, 4, 4, 4]})
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in order]
    level = [
        {"type": "scale", "scale": [1, 1, *(s / 2e3 for s in size)]},
        {"type": "translation", "translation": [0, 0, *(o / 2e3 for o in offset)]},
    ]
    image = {
        "version": "0.4", "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": level}],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2, 2]}],
    }  # fmt: skip
    attributes(root, ".zattrs", {"multiscales": [image]})
    return root


NAMED = {
    "zarr2 xarray": lambda f, d, o: _zarr2(f, d, o, "_ARRAY_DIMENSIONS"),
    "zarr2 funlib": lambda f, d, o: _zarr2(f, d, o, "axis_names"),
    "zarr3": _zarr3, "n5 axes": _n5_axes, "n5 cosem": _n5_cosem, "hdf5 labels": _hdf5_labels,
    "hdf5 ilastik": _hdf5_ilastik, "ome-zarr": _ome,
}  # fmt: skip


@pytest.mark.parametrize("kind", list(NAMED))
@pytest.mark.parametrize("order", ORDERS)
def test_named_axes_are_obeyed_with_their_sizes_and_offsets(tmp_path, kind, order):
    data = volume((6, 5, 4))
    source = open_source(str(NAMED[kind](tmp_path, data, order)))
    assert source.shape == data.shape and (np.asarray(source) == data).all()
    assert source.info.voxel_size_nm == pytest.approx(SIZE_NM)
    assert source.info.offset_nm == pytest.approx(OFFSET_NM)
    assert (source[1:3, 2:5, 3:] == data[1:3, 2:5, 3:]).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_webknossos_layers(tmp_path, order, channels, driver):
    """Axis order, scale, magnification and bounding box come from the dataset's properties."""
    data = volume((6, 5, 4))
    array = np.zeros((8, 6, 5), np.uint8)
    array[1:7, 1:6, 1:5] = data
    array, _, _ = turned(array, order)
    places = {a: i + channels for i, a in enumerate(order)} | ({"c": 0} if channels else {})
    chunked(driver, tmp_path / "wk" / "color" / "2-2-1", array[None] if channels else array, {})
    mag = {"mag": [2, 2, 1], "path": "./color/2-2-1", "axisOrder": places}
    box = {"topLeft": [2, 2, 1], "width": 12, "height": 10, "depth": 4}
    layers = [
        {"name": "color", "category": "color", "elementClass": "uint8", "dataFormat": driver,
         "boundingBox": box, "mags": [mag]},
        {"name": "seg", "category": "segmentation", "dataFormat": "wkw", "mags": []},
    ]  # fmt: skip
    scale = {"factor": [0.002, 0.0025, 0.04], "unit": "micrometer"}
    attributes(
        tmp_path / "wk", "datasource-properties.json", {"scale": scale, "dataLayers": layers}
    )
    for text in ("wk", "wk:color", "wk:color/2-2-1", "wk/color/2-2-1"):
        source = open_source(str(tmp_path / text))
        assert source.info.voxel_size_nm == pytest.approx(SIZE_NM), text
        assert source.info.origin == (1, 1, 1) and source.shape == data.shape
        assert (np.asarray(source) == data).all()
    with pytest.raises(VolumeError, match="format wkw"):
        open_source(str(tmp_path / "wk:seg"))
    with pytest.raises(VolumeError, match=r"no layer 'x'.*color \(color\), seg \(segmentation\)"):
        open_source(str(tmp_path / "wk:x"))


@pytest.mark.parametrize("order", ORDERS)
def test_mrc_axes(tmp_path, order):
    """mapc, mapr and maps say which axis columns, rows and sections run along."""
    data = volume((6, 5, 4), np.uint16)
    array, _, _ = turned(data, order)
    with mrcfile.new(tmp_path / "v.mrc") as file:
        file.set_data(np.ascontiguousarray(array.T))
        header = file.header
        header.mapc, header.mapr, header.maps = ("xyz".index(a) + 1 for a in order)
        header.mx, header.my, header.mz = data.shape
        header.cella = tuple(n * s * 10 for n, s in zip(data.shape, SIZE_NM, strict=True))
    source = open_source(str(tmp_path / "v.mrc"))
    assert (np.asarray(source) == data).all()
    assert source.info.voxel_size_nm == pytest.approx(SIZE_NM)


@pytest.mark.parametrize("order", ORDERS)
def test_nrrd_labels_and_axes_of_one_value(tmp_path, order):
    array, size, _ = turned(volume((6, 5, 4)), order)
    header = {"labels": ["c", *order], "kinds": ["list", *["domain"] * 3],
              "spacings": [np.nan, *size]}  # fmt: skip
    nrrd.write(str(tmp_path / "v.nrrd"), array[None], header)
    source = open_source(str(tmp_path / "v.nrrd"))
    assert (np.asarray(source) == volume((6, 5, 4))).all()
    assert source.info.voxel_size_nm == pytest.approx(SIZE_NM)


def test_a_zarr_whose_two_words_differ_is_refused(tmp_path):
    root = tmp_path / "v.zarr"
    chunked("zarr3", root / "0", volume((6, 5, 4)), {"dimension_names": ["x", "y", "z"]})
    image = {"axes": [{"name": a} for a in "zyx"], "datasets": [{"path": "0"}]}
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"multiscales": [image]}},
    }
    (root / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(VolumeError, match="in the metadata around it"):
        open_source(str(root))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (["z", "Y", b"x"], ["z", "y", "x"]), ("zyx", ["z", "y", "x"]), ("z, y, x", ["z", "y", "x"]),
        ([{"name": "Z"}, {"name": "y"}], ["z", "y"]), ({"x": 1, "y": 0}, ["y", "x"]),
        ({"axes": [{"key": "x"}]}, ["x"]), ({"x": 1}, None), (5, None), (None, None), ([], None),
    ],
)  # fmt: skip
def test_forms_of_axis_names(value, names):
    assert read_names(value) == names


@pytest.mark.parametrize(
    ("shape", "names", "usual", "axes"),
    [
        ((4, 5, 6), None, "zyx", (2, 1, 0)), ((4, 5, 6), None, "xyz", (0, 1, 2)),
        ((5, 6), None, "zyx", (1, 0, None)), ((5, 6), None, "xyz", (0, 1, None)),
        ((1, 4, 5, 6), None, "zyx", (3, 2, 1)), ((4, 5, 6, 1), None, "zyx", (2, 1, 0)),
        ((4, 5, 6, 1), None, "xyz", (0, 1, 2)), ((1, 1, 1, 5, 6), None, "zyx", (4, 3, 2)),
        ((1, 6, 5), ["c", "x", "y"], "zyx", (1, 2, None)),
        ((4, 5, 6), ["dim_0", "dim_1", "dim_2"], "zyx", (2, 1, 0)),
        ((6, 5, 4), ["col", "row", "depth"], "zyx", (0, 1, 2)),
        ((1, 6, 5, 4), ["x", "y", "z"], "zyx", (1, 2, 3)),
    ],
)  # fmt: skip
def test_axes_of_space(shape, names, usual, axes):
    assert space_axes("here", shape, names, usual) == axes


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((3, 4, 5, 6), None), ((3, 4, 5, 6), ["c", "z", "y", "x"]), ((4, 5, 6), ["z", "x", "x"]),
        ((4, 5, 6), ["z", "", ""]), ((5, 6), ["z", "y", "x"]), ((6,), None),
    ],
)  # fmt: skip
def test_axes_that_make_no_volume(shape, names):
    with pytest.raises(VolumeError, match="here: "):
        space_axes("here", shape, names)


def test_values_along_axes():
    assert along([1, 2, 3, 4], (3, 2, 1), 4) == [4, 3, 2]
    assert along([2, 3, 4], (3, 2, 1), 4) == [4, 3, 2]
    assert along([2, 3], (1, 0, None), 2) == [3, 2, 3]
    assert along([1, 2], (2, 1, 0), 3) is None and along("abc", (2, 1, 0), 3) is None
