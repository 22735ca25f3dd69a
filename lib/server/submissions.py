"""Labels from viewers: kept as they came, and canonical labels derived from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, cast

from lib.annotation.clicked import Clicked
from lib.annotation.deriving import Derived
from lib.annotation.shown import LastAnswers, Shown
from lib.annotation.submissions import Prepared, prepare_labels, recover, submit
from lib.annotation.versions import SUFFIXES, Mode, SubmissionOptions, Truth, Version
from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy, normalize_name
from lib.labels.segment_names import ANY_OBJECT, check_mapping
from lib.proofread.answering import Over
from lib.proofread.current import CurrentObjects
from lib.proofread.store import ObjectStore
from lib.proofread.submitted import Accepted, accept_submitted, done_in
from lib.server.errors import refuse
from lib.server.isolated import Isolated, Limits, WorkerStoppedError
from lib.server.regions import region
from lib.server.spelling import unknown_keys
from lib.volumes.errors import VolumeError
from lib.volumes.options import study_of
from lib.volumes.study import Study, StudyItem

FREE_BYTES = 512 * 2**20
BYTES_PER_VOXEL = 200
SECONDS_PER_VOXEL = 2e-6
"""What deriving may take for a voxel of the image, beside what is free; files of many layers and
of wide types need most of it."""

READ_KEYS = {"label_info", "fully_annotated", "roi", "mode", "truth", "over", "original_names"}
ORIGINAL_NAMES = "original_names"
"""Set by the datastore: name -> value in the label `original`, where there is one."""
AUTOMATIC = ("segmentation", "instances", "proofread_classes", "current")
"""Tasks whose answer nobody has touched yet."""
CLICKED = ("proofread", "strokes")
"""Tasks whose answer a person asked for, object by object."""
CHOICES = {"mode": ("replace", "merge"), "truth": ("touched", "all"), "over": ("free", "all")}
"""What a submission may say of itself; the first of each holds where it says nothing."""


class Submissions:
    """Takes the labels that annotators submit to one study.

    Params of a submission: `label_info` [{name, idx}, ...] as Slicer sends it,
    `fully_annotated` (unpainted voxels are none of the painted classes), `roi`
    [i0, i1, j0, j1, k0, k1] (only this part was annotated), `mode` "replace" or "merge",
    `truth` "touched" (what the machine proposed and nobody touched is not known) or "all",
    `over` "free" (accepted objects keep their voxels) or "all".

    Args:
        root: the study folder.
        hierarchy: the classes.
        settings: of the server; `labels.segment_names` maps a lab's own names.
        objects: the current objects of the study's items; opened here when not given.

    Raises:
        ValueError: such a name is mapped to what is no class, group or "uncertain".
    """

    def __init__(
        self,
        root: Path,
        hierarchy: LabelHierarchy,
        settings: Settings,
        objects: ObjectStore | None = None,
    ) -> None:
        self.objects = objects or ObjectStore(root, settings.inference.min_object_voxels)
        self.answers = LastAnswers(root)
        self.study = study_of(root, hierarchy, settings)
        self.mapping = settings.labels.segment_names
        self.taken_in: Callable[[], None] = lambda: None  # called after each submission
        self._seconds = settings.server.submission_seconds
        self._worker = Isolated(prepare_labels, workers=2)
        check_mapping(self.mapping, hierarchy, "labels.segment_names")

    def recover(self) -> list[str]:
        """Derive what was submitted to a server that was killed before it could."""
        self._worker.start()
        return recover(self.study, self.mapping, self.prepare)

    def prepare(
        self, study: Study, item_id: str, version: Version, mapping: Mapping[str, str]
    ) -> Prepared:
        """Derive a version's labels in a process of its own, within limits of time and memory.

        Raises:
            ValueError: what the upload got wrong, or that it goes beyond the limits.
        """
        voxels = prod(study.item(item_id).shape)
        limits = Limits(
            self._seconds + SECONDS_PER_VOXEL * voxels, FREE_BYTES + BYTES_PER_VOXEL * voxels
        )
        try:
            return self._worker.within(limits, study, item_id, version, mapping)
        except WorkerStoppedError as error:
            raise VolumeError(
                version.file, f"no labels could be derived from it ({error})"
            ) from None
        except MemoryError as error:
            most = (limits.bytes or 0) >> 20
            raise VolumeError(
                version.file, f"deriving labels from it takes more than {most} MiB ({error})"
            ) from None

    def __call__(
        self, image_id: str, file: Path, info: dict[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Keep a submission and derive labels.

        Returns:
            Info of the labels that exist now, by tag.

        Raises:
            HTTPException, ValueError: a submission that explains nothing; it is kept.
        """
        item = self.study.item(image_id)
        notes = unknown_keys(info, READ_KEYS)
        objects, _ = self.objects.open(image_id, item.shape)
        options = self._options(item, info, objects)
        label_info = segments_of(info)
        derived = submit(
            self.study, image_id, file, label_info, options, self.mapping, prepare=self.prepare
        )
        self.taken_in()
        accepted = accept_submitted(
            objects,
            self.study.item(image_id),
            derived.made,
            str(info.get("client_id") or ""),
            cast(Over, _choice(info, "over")),
            derived.region,
            self.mapping,
        )
        self.objects.drafts.forget(str(info.get("client_id") or ""), image_id)
        region_done = done_in(objects, derived.region)
        derived.notes.extend(notes)
        return self._told(image_id, info, derived, accepted, region_done)

    def note_answer(
        self,
        image_id: str,
        request: dict[str, Any],
        params: dict[str, Any],
        file: Path,
        clicked: Mapping[str, Clicked] | None = None,
    ) -> None:
        """Remember what a viewer is given, to tell afterwards what its annotator touched.

        Args:
            request: with `model` and `client_id`.
            params: of the reply, with `label_names`.
            file: the map that is sent.
            clicked: what was answered to clicks, by name.
        """
        client, model = str(request.get("client_id") or ""), str(request["model"])
        if model in AUTOMATIC:
            names = params["label_names"]
            corrected = model == "proofread_classes" and any(request.get(n) for n in names)
            if corrected and self.answers.of(image_id, client)[0]:
                return  # what points changed is not what the machine said
            self.answers.note(image_id, client, model, file, params["label_names"])
        elif model in CLICKED:
            first = request.get("foreground") or request.get("roi") or [""]
            place = "" if request.get("label") or request.get("objects") else str(first[0])
            for name in params["label_names"]:
                found = (clicked or {}).get(name)
                self.answers.note_click(image_id, client, name, found, place)

    def _options(
        self, item: StudyItem, info: dict[str, Any], objects: CurrentObjects
    ) -> SubmissionOptions:
        fully = info.get("fully_annotated")
        if fully is not None and not isinstance(fully, bool):
            raise refuse(f"fully_annotated: expected true or false, found {fully!r}")
        roi = region(info.get("roi"), item.shape)
        params = {key: value for key, value in info.items() if key not in READ_KEYS}
        shown, clicked = self.answers.of(item.id, str(info.get("client_id") or ""))
        names = {normalize_name(n): i for i, n in objects.standing().names.items()}
        return SubmissionOptions(
            fully,
            roi,
            cast(Mode, _choice(info, "mode")),
            params,
            cast(Truth, _choice(info, "truth")),
            [*shown, *self._original(item, info)],
            [*clicked, *self._accepted_names(objects)],
            names,
            objects.new_id(),
            self.answers.asked(item.id, str(info.get("client_id") or "")),
            sorted(objects.standing().accepted),
        )

    def _accepted_names(self, objects: CurrentObjects) -> list[str]:
        """Names under which accepted objects are shown: a person has decided them."""
        hierarchy, standing = self.study.hierarchy, objects.standing()
        kinds = [*hierarchy.class_names, *hierarchy.group_names, ANY_OBJECT]
        found = []
        for i in sorted(standing.accepted):
            own = standing.names.get(i)
            found += [normalize_name(n) for n in ([own] if own else [f"{k} {i}" for k in kinds])]
        return found

    def _original(self, item: StudyItem, info: dict[str, Any]) -> list[Shown]:
        """What Slicer shows of an item at once: the label that a batch run left."""
        path = item.label_path("original")
        names = info.get(ORIGINAL_NAMES)
        if not path.exists() or not isinstance(names, dict):
            return []
        return [Shown(path, {str(k): v for k, v in names.items() if isinstance(v, int)})]

    def _told(
        self,
        image_id: str,
        info: dict[str, Any],
        derived: Derived,
        accepted: Accepted,
        done: dict[str, int],
    ) -> dict[str, dict[str, Any]]:
        common = {"ts": int(time.time()), "client_id": info.get("client_id")}
        item = self.study.item(image_id)
        told: dict[str, dict[str, Any]] = {}
        for tag in ("final", "instance"):
            if item.has_label(tag):
                told[tag] = {**common, "name": item.label_path(tag).name}
        told["final"] |= {
            "known_share": derived.known_share,
            "notes": [*derived.notes, *accepted.notes],
            "touched_share": round(derived.touched_share, 6),
            "machine_share": round(derived.machine_share, 6),
            "accepted": accepted.names,
            "kept": derived.kept,
            "removed": derived.removed,
            "done": done,
        }
        told["instance"] |= {"objects": len(derived.objects)}
        folder = self.study.root / "labels" / "submitted"
        for suffix in SUFFIXES:
            if (folder / f"{image_id}{suffix}").exists():
                raw = {"name": f"{image_id}{suffix}", "label_info": info.get("label_info")}
                told["submitted"] = {**common, **raw}
                break
        return told


def _choice(info: dict[str, Any], key: str) -> str:
    value = info.get(key, CHOICES[key][0])
    if value not in CHOICES[key]:
        raise refuse(f"{key}: expected one of {', '.join(CHOICES[key])}, found {value!r}")
    return str(value)


def segments_of(info: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The `label_info` of a submission; None where the file names its own segments.

    Raises:
        HTTPException: 400 for what is no list of objects.
    """
    value = info.get("label_info")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise refuse("label_info: expected a list of {name, idx}")
    return list(value)
