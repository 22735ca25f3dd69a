"""Weights files: written whole or not at all, read without pickle, refused where they do not fit.

A weights file is a network's parameters with the settings it was trained with and its label
hierarchy: what it takes to rebuild and run it. Training checkpoints hold the same and more.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy, hierarchy_from_dict, load_hierarchy
from lib.networks.digests import place_weights, read_checked
from lib.networks.model import NeuropilNet, build_network

FORMAT = 1

NEW_PARTS = ("backbone.fine.", "task_heads.layers.affinity.")
"""What weights may lack that a run starts from: older ones do."""


def save_weights(
    path: Path,
    state: Mapping[str, Tensor],
    settings: Settings,
    hierarchy: LabelHierarchy,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write a weights file atomically, with its digest beside it.

    Args:
        path: target; its folder is made.
        state: the network's state dict.
        settings: resolved configuration the network was built with.
        hierarchy: its classes and groups.
        meta: figures, step, data sets; plain values only.
    """
    data = {
        "format": FORMAT,
        "model": {k: v.detach().cpu() for k, v in state.items()},
        "settings": settings.model_dump(mode="json"),
        "hierarchy": hierarchy.to_dict(),
        "inside": [c.name for c in hierarchy.classes if c.inside],
        "meta": dict(meta or {}),
    }
    written = io.BytesIO()
    torch.save(data, written)
    place_weights(path, written.getvalue())


def load_weights(path: Path | str) -> dict[str, Any]:
    """Read a weights file or a checkpoint onto the CPU.

    Raises:
        ValueError: missing, damaged or of another format; names the file and the remedy.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"weights {path}: no such file; train first or give another --weights")
    content = read_checked(path)
    try:
        data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises many kinds for a damaged or foreign file.
        raise ValueError(
            f"weights {path}: cannot be read ({type(error).__name__}: {error}); expected a file "
            "that Neuropil wrote; restore the previous version or train again"
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or "model" not in data:
        raise ValueError(
            f"weights {path}: not a Neuropil weights file of format {FORMAT}; "
            "bare state dicts of other tools cannot be used"
        )
    return data


def rewrite_weights(
    path: Path, meta: Mapping[str, Any], parameters: Mapping[str, Tensor] | None = None
) -> None:
    """Change what was fitted to a weights file afterwards, atomically; all else stays as it is.

    Args:
        path: the file.
        meta: added to its meta data, plain values.
        parameters: that take the place of those of the same names.

    Raises:
        ValueError: see `load_weights`.
    """
    data = load_weights(path)
    data["meta"] = {**data["meta"], **meta}
    data["model"] = {**data["model"], **(parameters or {})}
    written = io.BytesIO()
    torch.save(data, written)
    place_weights(path, written.getvalue())


def load_network(
    path: Path | str, device: torch.device | str = "cpu"
) -> tuple[NeuropilNet, Settings, LabelHierarchy, dict[str, Any]]:
    """The network of a weights file, in evaluation mode.

    Returns:
        network, the settings it was trained with, its hierarchy, the file's meta data.

    Raises:
        ValueError: see `load_weights`.
    """
    data = load_weights(path)
    settings = trained_settings(data)
    hierarchy = saved_hierarchy(data)
    net = build_network(settings.model, settings.loss, hierarchy)
    net.load_state_dict(data["model"])
    net.take_fitted(data["meta"])
    net.to(device).eval()
    return net, settings, hierarchy, data["meta"]


def saved_hierarchy(data: Mapping[str, Any]) -> LabelHierarchy:
    """The classes of a weights file, with what lies inside cells.

    Args:
        data: from `load_weights`; older files do not say what lies inside, the default classes do.
    """
    hierarchy, names = hierarchy_from_dict(data["hierarchy"]), data.get("inside")
    if names is None:
        names = [c.name for c in load_hierarchy().classes if c.inside]
    classes = tuple(replace(c, inside=c.name in names) for c in hierarchy.classes)
    return replace(hierarchy, classes=classes)


def trained_settings(data: Mapping[str, Any]) -> Settings:
    """The settings that a file of `load_weights` was trained with.

    How to run is the reader's choice, and its keys change between versions: it is left out.
    """
    return Settings.model_validate({**data["settings"], "inference": {}})


def differences(
    data: Mapping[str, Any], settings: Settings, hierarchy: LabelHierarchy
) -> list[str]:
    """Why a file's weights do not fit a network of these settings; empty when they do."""
    found: list[str] = []
    theirs = hierarchy_from_dict(data["hierarchy"])
    if theirs.class_names != hierarchy.class_names:
        found.append(
            f"classes: found {', '.join(theirs.class_names)}; "
            f"expected {', '.join(hierarchy.class_names)}"
        )
    ours, other = dict(hierarchy.groups), dict(theirs.groups)
    for name in [*ours, *(n for n in other if n not in ours)]:
        if ours.get(name) != other.get(name):
            found.append(
                f"group {name}: found {_members(theirs, other.get(name))}; "
                f"expected {_members(hierarchy, ours.get(name))}"
            )
    if set(ours) == set(other) and list(ours) != list(other):
        found.append(f"order of groups: found {list(other)}; expected {list(ours)}")
    saved = data["settings"]["model"]
    for key, value in settings.model.model_dump(mode="json").items():
        if key != "pretrained_encoder" and key in saved and saved[key] != value:
            found.append(f"model.{key}: found {saved[key]}; expected {value}")
    if not found:
        net = build_network(settings.model, settings.loss, hierarchy)
        found = _shape_differences(data["model"], net.state_dict())
    return found


def check_fits(
    path: Path, data: Mapping[str, Any], settings: Settings, hierarchy: LabelHierarchy
) -> None:
    """Refuse weights of another hierarchy or architecture.

    Raises:
        ValueError: lists every difference.
    """
    if found := differences(data, settings, hierarchy):
        listed = "\n".join(f"  - {line}" for line in found)
        raise ValueError(
            f"{path} was made with another network or label hierarchy:\n{listed}\n"
            "train into another folder, start --from-scratch, or use the configuration it was "
            "made with"
        )


def with_new_parts(
    data: Mapping[str, Any], settings: Settings, hierarchy: LabelHierarchy
) -> dict[str, Any]:
    """Weights that lack the fine path or the affinity head, with those parts as in a new network.

    A new fine path adds nothing to the features, so all other outputs stay as they were.

    Args:
        data: from `load_weights`.
        settings: of the run; parts that it does not ask for are not added.

    Returns:
        data of a network that has the parts.
    """
    saved = data["settings"]["model"]
    if not saved.get("fine_features"):  # else of its own width, which `check_fits` compares
        saved = {**saved, "fine_features": settings.model.fine_features}
    net = build_network(settings.model, settings.loss, hierarchy)
    new = {
        key: value
        for key, value in net.state_dict().items()
        if key not in data["model"] and key.startswith(NEW_PARTS)
    }
    return {
        **data,
        "model": {**data["model"], **new},
        "settings": {**data["settings"], "model": saved},
    }


def with_shape_of(settings: Settings, data: Mapping[str, Any]) -> Settings:
    """Settings whose network has the shape of a weights file.

    What was set explicitly stays, and is then refused where it does not fit; whatever was
    left at its default follows the file.

    Args:
        settings: the run's.
        data: from `load_weights`.
    """
    saved = data["settings"]
    model = {k: v for k, v in saved["model"].items() if k not in settings.model.model_fields_set}
    model.pop("pretrained_encoder", None)
    heads = {
        key: saved["loss"][key]
        for key in ("weight_geometry", "weight_prompt", "weight_affinity")
        if key not in settings.loss.model_fields_set and key in saved["loss"]
    }
    known = set(type(settings.model).model_fields)
    return settings.model_copy(
        update={
            "model": settings.model.model_copy(
                update={k: v for k, v in model.items() if k in known}
            ),
            "loss": settings.loss.model_copy(update=heads),
        }
    )


def _members(hierarchy: LabelHierarchy, members: tuple[int, ...] | None) -> str:
    if members is None:
        return "no such group"
    return "{" + ", ".join(hierarchy.class_names[i] for i in members) + "}"


def _shape_differences(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    found = [f"{k}: not in the file" for k in wanted if k not in saved]
    found += [f"{k}: in the file only" for k in saved if k not in wanted]
    found += [
        f"{k}: found shape {tuple(saved[k].shape)}; expected {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in saved and saved[k].shape != v.shape
    ]
    return found
