"""What stands for Slicer's windows where its MONAI Label module imports or calls them.

Stubbed are Qt, the widgets that the module reads choices from, and the segment editor's
widget; scene, storage and segmentation logic are Slicer's own (slicer-core).
"""

from __future__ import annotations

import sys
import tempfile
import types
import urllib.request
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import SimpleITK as sitk
import slicer
import slicer_core

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
