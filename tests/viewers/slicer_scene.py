"""3D Slicer without its windows: real MRML scene and segmentation logic, real MONAI Label plugin.

The plugin's module is imported unmodified from the installed wheel; requests, volumes, markups
and segments are made by its own code on Slicer's own libraries (slicer-core).

Runs in an environment of its own; imports nothing of the app.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import slicer
import vtk
from slicer_stubs import Choice, Editor, prepare
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy


class Slicer:
    """A person at Slicer's MONAI Label module.

    Args:
        plugin: folder of the module, as the wheel installs it.
        server: address of the server.
        extension: the file extension chosen in the settings.
    """

    def __init__(self, plugin: Path, server: str, extension: str) -> None:
        prepare(
            {
                "MONAILabel/autoRunSegmentationOnNextSample": False,
                "MONAILabel/allowOverlappingSegments": extension == ".seg.nrrd",
                "MONAILabel/fileExtension": extension,
                "MONAILabel/serverUrl": server,
            }
        )
        sys.path.insert(0, str(plugin))
        module = importlib.import_module("MONAILabel")
        self.widget = widget = object.__new__(module.MONAILabelWidget)
        widget.logic = module.MONAILabelLogic(server_url=server)
        widget.ui = MagicMock()
        for name in (
            "segmentationModelSelector", "deepgrowModelSelector", "labelComboBox", "trainerBox",
            "strategyBox", "serverComboBox", "scribblesMethodSelector", "scribLabelComboBox",
        ):  # fmt: skip
            setattr(widget.ui, name, Choice())
        widget.ui.serverComboBox.currentText = server
        widget.ui.embeddedSegmentEditorWidget = Editor()
        widget.ui.freezeUpdateCheckBox.checked = False
        for box in (widget.ui.sam2PlaceWidget, widget.ui.scribblesPlaceWidget):
            box.currentNode = lambda: None
        # These fill widgets from the scene and the settings; there are no widgets.
        for name in (
            "updateGUIFromParameterNode", "updateParameterNodeFromGUI", "invalidateConfigTable",
            "onResetScribbles", "resetSam2ROI", "saveServerUrl", "createScribblesROINode",
            "createSam2ROINode",
        ):  # fmt: skip
            setattr(widget, name, lambda *args, **kwargs: None)
        widget.info, widget.models, widget.config = {}, {}, {}
        widget.samples, widget.current_sample, widget.state = {}, {}, {}
        widget._volumeNode = widget._segmentNode = None
        widget._volumeNodes = []
        widget._scribblesROINode = widget._sam2ROINode = None
        widget.progressBar = MagicMock()
        widget.tmpdir = tempfile.mkdtemp()
        widget.file_ext = extension
        widget.resetLabelState = widget.deepedit_multi_label = False
        widget.scribblesMode = widget.timer = None

    def connect(self) -> dict[str, Any]:
        """Press the refresh button; the server's /info/."""
        self.widget.fetchInfo()
        return dict(self.widget.info)

    def next_sample(self, strategy: str) -> dict[str, Any]:
        """Press Next Sample; the sample that Slicer then shows."""
        self.widget.ui.strategyBox.currentText = strategy
        self._close_scene()
        self.widget.onNextSampleButton()
        return dict(self.widget.current_sample)

    def choose(self, section: str, name: str, **options: Any) -> None:
        """Choose options in the plugin's table, as its own code does: the choice comes first."""
        config = self.widget.info[section][name]["config"]
        for key, value in options.items():
            if key not in config:
                raise KeyError(f"{section} {name} has no option {key}: {sorted(config)}")
            if isinstance(config[key], list):
                config[key].remove(value)
                config[key].insert(0, value)
            else:
                config[key] = value

    def segment(self, model: str) -> None:
        """Press Run of Auto Segmentation."""
        self.widget.ui.segmentationModelSelector.currentText = model
        self.widget.onClickSegmentation()

    def click(
        self, model: str, label: str, positive: list[list[int]], negative: list[list[int]]
    ) -> None:
        """Put points for a segment and press Update of Smart Edit."""
        self.widget.ui.deepgrowModelSelector.currentText = model
        self.widget.ui.labelComboBox.currentText = label
        kind = self.widget.models[model]
        self.widget.deepedit_multi_label = kind["type"] == "deepedit" and len(kind["labels"]) > 0
        self.widget.dgPositivePointListNode = self._points(positive)
        self.widget.dgNegativePointListNode = self._points(negative)
        self.widget.onUpdateDeepgrow()

    def add_segment(self, name: str, mask: np.ndarray | None = None) -> None:
        """Add a segment as the segment editor does: with an id that is not its name.

        Args:
            mask: (X, Y, Z) painted voxels.
        """
        segmentation = self.widget._segmentNode.GetSegmentation()
        segment_id = segmentation.AddEmptySegment("", name)
        if mask is not None:
            self.paint(segment_id, mask)

    def paint(self, segment_id: str, mask: np.ndarray) -> None:
        """Replace a segment's voxels; other segments give way, as the editor does by default."""
        for other in self.segments():
            if other["id"] != segment_id and (other["mask"] & mask).any():
                self._set(other["id"], other["mask"] & ~mask)
        self._set(segment_id, mask)

    def _set(self, segment_id: str, mask: np.ndarray) -> None:
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*mask.shape)
        to_world = vtk.vtkMatrix4x4()
        self.widget._volumeNode.GetIJKToRASMatrix(to_world)
        image.SetImageToWorldMatrix(to_world)
        values = numpy_to_vtk(mask.ravel(order="F").astype(np.uint8), deep=True)
        image.GetPointData().SetScalars(values)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        done = logic.SetBinaryLabelmapToSegment(
            image, self.widget._segmentNode, segment_id, logic.MODE_REPLACE
        )
        assert done, f"Slicer did not take the voxels of {segment_id}"

    def segment_id(self, name: str) -> str:
        """The id of the segment with a name, or ""."""
        return str(self.widget._segmentNode.GetSegmentation().GetSegmentIdBySegmentName(name) or "")

    def rename(self, old: str, new: str) -> None:
        """Rename a segment in the segments' table."""
        segmentation = self.widget._segmentNode.GetSegmentation()
        segmentation.GetSegment(self.segment_id(old)).SetName(new)

    def remove(self, name: str) -> None:
        """Remove a segment."""
        self.widget._segmentNode.GetSegmentation().RemoveSegment(self.segment_id(name))

    def clear(self) -> None:
        """Remove every segment's voxels, and segments that the app did not declare."""
        segmentation = self.widget._segmentNode.GetSegmentation()
        segmentation.RemoveAllSegments()
        self.widget.updateSegmentationMask(None, self.widget.info["labels"])

    def submit(self, segmentation_model: str) -> None:
        """Press Submit Label."""
        self.widget.ui.segmentationModelSelector.currentText = segmentation_model
        self.widget.onSaveLabel()

    def train(self, trainer: str) -> None:
        """Press Train."""
        self.widget.ui.trainerBox.currentText = trainer
        self.widget.onTraining()

    def training(self) -> dict[str, Any]:
        """What the plugin's progress bar is drawn from."""
        status = self.widget.logic.train_status(False)
        stats = next(iter(self.widget.logic.info()["train_stats"].values()), {})
        return {"status": status.get("status"), "stats": stats}

    def segments(self) -> list[dict[str, Any]]:
        """Name, id, colour and (X, Y, Z) mask of each segment, in Slicer's order."""
        segmentation = self.widget._segmentNode.GetSegmentation()
        shape = self.volume().shape
        found = []
        for n in range(segmentation.GetNumberOfSegments()):
            segment_id = segmentation.GetNthSegmentID(n)
            segment = segmentation.GetSegment(segment_id)
            found.append(
                {
                    "name": segment.GetName(),
                    "id": segment_id,
                    "color": [round(255 * c) for c in segment.GetColor()],
                    "mask": self._mask(segment_id, shape),
                }
            )
        return found

    def volume(self) -> np.ndarray:
        """(X, Y, Z) grey values of the volume that Slicer shows."""
        image = self.widget._volumeNode.GetImageData()
        values = vtk_to_numpy(image.GetPointData().GetScalars())
        return values.reshape(image.GetDimensions(), order="F")

    def _mask(self, segment_id: str, shape: tuple[int, ...]) -> np.ndarray:
        image = slicer.vtkOrientedImageData()
        self.widget._segmentNode.GetBinaryLabelmapRepresentation(segment_id, image)
        mask = np.zeros(shape, bool)
        extent = image.GetExtent()
        if image.GetPointData().GetScalars() is None or extent[0] > extent[1]:
            return mask
        self._check_geometry(image)
        values = vtk_to_numpy(image.GetPointData().GetScalars())
        inside = values.reshape(image.GetDimensions(), order="F") > 0
        x, y, z = (slice(extent[2 * a], extent[2 * a + 1] + 1) for a in range(3))
        mask[x, y, z] = inside
        return mask

    def _check_geometry(self, image: Any) -> None:
        """Segments must lie on the volume's own voxels, or [i, j, k] would mean two things."""
        found, wanted = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(found)
        self.widget._volumeNode.GetIJKToRASMatrix(wanted)
        for row in range(3):
            for column in range(4):
                a, b = found.GetElement(row, column), wanted.GetElement(row, column)
                if abs(a - b) > 1e-3 * max(1.0, abs(b)):
                    raise AssertionError(f"segment off the volume's grid: {a} for {b}")

    def _points(self, voxels: list[list[int]]) -> Any:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
        matrix = vtk.vtkMatrix4x4()
        self.widget._volumeNode.GetIJKToRASMatrix(matrix)
        for i, j, k in voxels:
            # a hand never hits a voxel's centre
            at = matrix.MultiplyPoint([i + 0.3, j - 0.3, k + 0.2, 1.0])
            node.AddControlPoint(vtk.vtkVector3d(*at[:3]))
        return node

    def _close_scene(self) -> None:
        """What the plugin does when a scene is closed, less its widgets."""
        if self.widget._volumeNode is None:
            return
        slicer.mrmlScene.Clear(0)
        self.widget._volumeNode = self.widget._segmentNode = None
        self.widget._volumeNodes, self.widget.samples = [], {}
