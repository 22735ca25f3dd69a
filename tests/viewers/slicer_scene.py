"""3D Slicer without its windows: real MRML scene and segmentation logic, real MONAI Label plugin.

The plugin's module is imported unmodified from the installed wheel. Stubbed are Qt, the
widgets that the plugin reads choices from, and the segment editor's widget; requests, volumes,
markups and segments are made by the plugin's own code on Slicer's own libraries (slicer-core).

Runs in an environment of its own; imports nothing of the app.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import types
import urllib.request
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import SimpleITK as sitk
import slicer
import slicer_core
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

DIALOGS: list[tuple[str, str]] = []
"""(kind, text) of every dialog that the plugin showed."""


class Choice:
    """A combo box: the plugin reads its text and sets its text."""

    def __init__(self) -> None:
        self.currentText = ""
        self.currentIndex = 0
        self.count = 1

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class Effect:
    """The segment editor's logical operator, on the real segmentation."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor

    def selectedSegmentLabelmap(self) -> Any:
        image = slicer.vtkOrientedImageData()
        self.editor.node.GetBinaryLabelmapRepresentation(self.editor.segment, image)
        return image

    def modifySelectedSegmentByLabelmap(self, image: Any, mode: int) -> None:
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        merge = logic.MODE_REPLACE if mode == 0 else logic.MODE_MERGE_MAX
        logic.SetBinaryLabelmapToSegment(image, self.editor.node, self.editor.segment, merge)


class Editor:
    """The embedded segment editor: remembers the selected segment."""

    def __init__(self) -> None:
        self.node: Any = None
        self.segment = ""

    def setSegmentationNode(self, node: Any) -> None:
        self.node = node

    def setCurrentSegmentID(self, segment: str) -> None:
        self.segment = segment

    def effectByName(self, name: str) -> Effect:
        return Effect(self)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def _load_volume(path: str, kind: str = "vtkMRMLScalarVolumeNode") -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(kind, Path(path).name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    slicer.mrmlScene.AddNode(storage)
    storage.SetFileName(path)
    storage.SetCenterImage(0)
    if kind == "vtkMRMLScalarVolumeNode":
        node.CreateDefaultDisplayNodes()
    if not storage.ReadData(node):
        raise RuntimeError(f"Slicer cannot read {path}")
    return node


def _save_node(node: Any, path: str, *_: Any) -> bool:
    """As Slicer's file dialog does: by the storage node of the node's own kind."""
    if node.IsA("vtkMRMLVolumeNode"):
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    else:
        storage = node.CreateDefaultStorageNode()
    slicer.mrmlScene.AddNode(storage)
    storage.SetFileName(path)
    storage.SetUseCompression(1)
    return bool(storage.WriteData(node))


def _push_volume(image: Any, target: Any = None, className: str = "", **_: Any) -> Any:
    """What sitkUtils does in Slicer: hand an image over, here by a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "pushed.nrrd")
        sitk.WriteImage(image, path)
        return _load_volume(path, className)


class _Downloads:
    def downloadFromURL(
        self, nodeNames: str, fileNames: str, uris: str, checksums: Any = None
    ) -> list[Any]:
        path = Path(tempfile.mkdtemp()) / Path(fileNames).name
        with urllib.request.urlopen(uris) as answer:
            path.write_bytes(answer.read())
        node = _load_volume(str(path))
        node.SetName(nodeNames)
        return [node]


def _dialog(kind: str) -> Any:
    def show(text: str, *_: Any, detailedText: str = "", **__: Any) -> bool:
        DIALOGS.append((kind, f"{text}\n{detailedText}".strip()))
        return True

    return staticmethod(show)


def _module(name: str, **content: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module


def prepare(settings: dict[str, Any]) -> None:
    """Put the scene, its logic and the stubs where the plugin imports them from.

    Args:
        settings: the user's settings ("MONAILabel/fileExtension": ".seg.nrrd", ...).
    """
    slicer.mrmlScene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    base = type("Base", (), {"__init__": lambda self, *args, **kwargs: None})
    replaced = {
        "VTKObservationMixin": type("VTKObservationMixin", (), {"__init__": lambda self: None}),
        "settingsValue": lambda key, default=None, converter=None: settings.get(key, default),
        "errorDisplay": _dialog("error").__func__,
        "warningDisplay": _dialog("warning").__func__,
        "infoDisplay": _dialog("info").__func__,
        "confirmOkCancelDisplay": lambda *args, **kwargs: True,
        "getNodesByClass": lambda *args: [],
        "tempDirectory": lambda name: tempfile.mkdtemp(prefix=name),
        "saveNode": _save_node,
        "loadVolume": _load_volume,
        "createProgressDialog": lambda *args, **kwargs: MagicMock(),
    }
    for name, value in replaced.items():
        setattr(slicer.util, name, value)
    slicer.app = MagicMock()
    slicer.qSlicerSegmentEditorAbstractEffect = types.SimpleNamespace(
        ModificationModeSet=0, ModificationModeAdd=1
    )
    slicer.modules = types.SimpleNamespace(segmentations=types.SimpleNamespace(logic=lambda: logic))
    bases = ("", "Widget", "Logic", "Test")
    _module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    _module("slicer.ScriptedLoadableModule", **{f"ScriptedLoadableModule{b}": base for b in bases})
    _module("ctk", ctkSettingsPanel=base, __getattr__=lambda name: MagicMock())
    _module(
        "qt", QDialog=base, QApplication=MagicMock(), Qt=MagicMock(),
        __getattr__=lambda name: MagicMock(),
    )  # fmt: skip
    _module("sitkUtils", PushVolumeToSlicer=_push_volume)
    _module("SampleData", SampleDataLogic=_Downloads)
    sys.modules["vtkSegmentationCore"] = slicer_core.vtkSegmentationCore


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


def get(server: str, path: str) -> Any:
    """A GET whose answer is JSON."""
    with urllib.request.urlopen(f"{server}{path}") as answer:
        return json.load(answer)
