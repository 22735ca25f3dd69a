"""What Neuroglancer shows of volumes: places, the screen, large and thin ones, scores."""

from __future__ import annotations

from pathlib import Path

import neuroglancer
import numpy as np
import tensorstore
from view_cases import SETTINGS, SIZE_NM, H, desk_of_one, press, stopped  # noqa: F401

from lib.queries.heatmap import write_heat_map
from lib.view.neuroglancer.places import around, screen_extent, voxel_of
from lib.view.neuroglancer.properties import object_properties
from lib.view.neuroglancer.viewer import LiveViewer
from lib.view.neuroglancer.volumes import Volume, heat_reading, image_reading
from lib.volumes.boxes import Box, whole_box
from lib.volumes.frames import viewer_frame
from lib.volumes.readers.opening import open_file
from lib.volumes.readers.region import RegionOf
from lib.volumes.regions import add_region

AXON = H.class_names.index("axon")


def test_a_place_is_a_voxel_in_any_order_and_scale() -> None:
    space = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="nm", scales=SIZE_NM)
    assert voxel_of([3.5, 4.0, 5.9], space, SIZE_NM) == (3, 4, 5)
    assert voxel_of([3.99999, 4.0, 5.0], space, SIZE_NM) == (4, 4, 5), "a float's rounding"
    turned = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="nm", scales=[40, 16, 8])
    assert voxel_of([5.5, 2.0, 3.5], turned, SIZE_NM) == (3, 4, 5)
    assert voxel_of(None, space, SIZE_NM) is None
    plane = neuroglancer.CoordinateSpace(names=["x", "y"], units="nm", scales=[8, 8])
    assert voxel_of([1, 2], plane, SIZE_NM) is None


def test_the_screen_is_cut_to_the_image_and_to_what_is_allowed() -> None:
    frame = viewer_frame((4096, 4096, 512), SIZE_NM)
    assert screen_extent(1.0, SIZE_NM, (256, 256, 32), frame) == (256, 256, 32)
    assert screen_extent(0.1, SIZE_NM, (256, 256, 32), frame) == (80, 80, 16)
    along_x = viewer_frame((512, 4096, 4096), (40.0, 8.0, 8.0))
    assert screen_extent(1.0, (40.0, 8.0, 8.0), (256, 256, 32), along_x) == (32, 256, 256)
    assert around((0, 50, 99), (20, 20, 20), (100, 100, 100)) == ((0, 20), (40, 60), (80, 100))
    assert around((3, 3, 0), (20, 20, 20), (8, 100, 1)) == ((0, 8), (0, 20), (0, 1))


def test_names_and_classes_of_no_object_are_still_a_table() -> None:
    told = object_properties(None, np.zeros(1, np.uint8), H)
    assert told["inline"]["ids"] == ["0"], "the client does not end with an empty one"


def test_only_what_is_on_the_screen_is_read() -> None:
    asked: list[Box] = []

    class Large:
        shape, dtype = (10**5, 10**5, 10**4), np.dtype(">u2")

        def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
            asked.append(tuple((s.start, s.stop) for s in index))
            return np.full([s.stop - s.start for s in index], 7, ">u2")

    volume = Volume(image_reading(Large()), SIZE_NM, labels=False)
    assert volume.info()["dataType"] == "uint16"
    start, end = np.array([64, 128, 16]), np.array([128, 192, 32])
    data, _ = volume.get_encoded_subvolume("raw", start, end, "1,1,1")
    assert asked == [((64, 128), (128, 192), (16, 32))]
    assert (np.frombuffer(data, np.uint16) == 7).all()


def test_a_single_section_is_shown_and_clicked(tmp_path: Path) -> None:
    desk = desk_of_one(tmp_path)
    assert desk.scores is not None
    rng = np.random.default_rng(1)
    desk.scores.study.add_item("flat", rng.integers(0, 256, (40, 30, 1), np.uint8), SIZE_NM)
    viewer = LiveViewer(desk.item("flat"), "http://127.0.0.1:1")
    assert viewer.viewer.state.layout.type == "xy"
    assert "voxels in" in press(viewer, "positive", (8, 10, 0))
    assert "accept" in press(viewer, "accept")
    assert "k 0-0" in press(viewer, "classes")


def test_a_volume_larger_than_memory_is_annotated_where_it_is_looked_at(tmp_path: Path) -> None:
    """A terabyte of which a few chunks are stored."""
    shape, place = (16384, 16384, 4096), (slice(8192, 8256), slice(8192, 8256), slice(2048, 2064))
    voxels = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(tmp_path / "large.zarr")},
            "metadata": {
                "shape": shape[::-1], "data_type": "uint8",
                "chunk_grid": {
                    "name": "regular", "configuration": {"chunk_shape": [16, 64, 64]}
                },
            },
        },
        create=True,
    ).result()  # fmt: skip
    rng = np.random.default_rng(0)
    voxels[place[::-1]] = rng.integers(1, 255, (16, 64, 64), np.uint8)
    desk = desk_of_one(tmp_path / "study")
    assert desk.scores is not None
    whole = RegionOf(str(tmp_path / "large.zarr"), "", whole_box(shape), SIZE_NM, (1.0, 254.0))
    add_region(desk.scores.study, "large", whole)
    viewer = LiveViewer(desk.item("large"), "http://127.0.0.1:1")
    with viewer.viewer.txn() as state:
        state.position = [8224, 8224, 2056]
        state.cross_section_scale = 0.05
    assert "voxels in" in press(viewer, "positive", (8224, 8224, 2056))
    press(viewer, "accept", (8224, 8224, 2056))
    press(viewer, "declare")
    assert "is annotated, 1 objects" in press(viewer, "declare")
    (made,) = [i for i in desk.scores.study.items() if i.id not in ("one", "large")]
    assert made.has_label("final") and np.prod(made.shape) < 2**23
    assert (made.read_instances() > 0).any()


def test_scores_are_a_layer(tmp_path: Path) -> None:
    desk = desk_of_one(tmp_path)
    assert desk.scores is not None
    net = desk.network.get("cpu").predictor.net
    assert desk.scores.score(lambda: (net, SETTINGS, H), "tiny") == 1
    scene = desk.item("one")
    assert scene.item is not None
    viewer = LiveViewer(scene, "http://127.0.0.1:1")
    assert not viewer.viewer.state.layers["uncertainty"].visible
    scores = desk.scores.scores(scene.item)
    assert scores is not None
    stored = open_file(write_heat_map(scene.item, scores))
    reading = heat_reading(scores)
    assert (reading[3:20, 2:9, 1:7] == stored[3:20, 2:9, 1:7]).all()
