"""`proofread`: clicks on an object -> its mask; or an edit of the current objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from lib.annotation.clicked import Clicked
from lib.clicks.answer import ClickAnswer
from lib.clicks.source import Kind
from lib.clicks.strokes import box_points, fewer_points
from lib.clicks.viewer import ViewerRequest
from lib.infers.base import Answer, NeuropilTask, Parts
from lib.infers.clicks import (
    clicked_class,
    clicked_kind,
    inside_image,
    named_points,
    starting_mask,
    viewer_points,
)
from lib.infers.writer import cropped_affine, result_dtype, result_extension, write_label
from lib.labels.segment_names import slip_told
from lib.prediction.fragment_store import fragments_file
from lib.proofread.answered import answered, under_another_name
from lib.proofread.answering import Over, answer_many
from lib.proofread.asking import Asking
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.editing import ACTIONS, Editor, EditRequest
from lib.proofread.naming import organelles_of
from lib.proofread.submitted import done_in
from lib.server.errors import refuse
from lib.server.regions import region
from lib.server.weights import Loaded
from lib.volumes.boxes import Box, Triple, box_origin, box_slices, intersect, minus, shift_box
from lib.volumes.opened import RequestImage, item_id


@dataclass(frozen=True)
class Turn:
    """One request, read.

    Args:
        loaded: the network.
        image: of the request.
        device: that computes.
        objects: of the item as they stand; None for an image of no study.
        warnings: why a map of objects that is there cannot be used.
        client: who asks; "" unknown.
        name: of the segment; "" none.
        over: whether accepted objects are in the way.
        kind: of object that points mean where no name says it.
    """

    loaded: Loaded
    image: RequestImage
    device: str
    objects: CurrentObjects | None
    warnings: list[str]
    client: str
    name: str
    over: Over
    kind: Kind

    @property
    def standing(self) -> CurrentObjects | None:
        """The objects, where there are any."""
        return None if self.objects is None or self.objects.empty else self.objects


class Proofread(NeuropilTask):
    """The object under the clicks, and what is to become of it.

    Options: `do` (answer only, or an edit), `over` (what an answer may take), `kind` (what points
    on an organelle mean), `reply` (the whole volume, or the object's box alone for viewers that
    place a map by its geometry).
    """

    reads = frozenset({"foreground", "background", "label", "objects", "roi", "slice"})

    def __init__(self, parts: Parts, type: InferType = InferType.DEEPGROW) -> None:
        super().__init__(
            parts,
            type,
            "The clicked object; clicks in the background take voxels away; do: accept it, "
            "split, merge, delete or name objects, undo and redo",
            {
                "do": list(ACTIONS),
                "over": ["free", "all"],
                "kind": ["cell", "organelle", "auto"],
                "reply": ["volume", "box"],
            },
        )
        self.objects = parts.objects
        self.drafts = parts.objects.drafts
        self.editor = Editor(parts.labels.hierarchy, parts.settings.labels)

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        turn = self._turn(request, loaded, image, device)
        limits = region(request.get("roi"), image.shape)
        if request.get("objects") is not None:
            return self._many(request, turn, limits)
        asked = self._asked(request, turn, limits)
        action = self.choice(request, "do")
        told: dict[str, Any] = {}
        if action == "answer":
            found = self._answer(turn, asked)
            self._note(turn, found)
        else:
            if turn.objects is None:
                raise refuse("do: the image lies in no study; only an answer can be given")
            wanted = EditRequest(
                action, asked.positive, turn.name, turn.client, asked.kind, turn.over
            )
            found, told = self.editor.run(turn.objects, wanted, lambda: self._answer(turn, asked))
            self.drafts.forget(turn.client, item_id(image.path))
            told["done"] = done_in(turn.objects, limits)
        if action in ("answer", "accept") and asked.positive:
            told["answered"] = self._answered(turn, asked, found, turn.name)
        found = _tight(found)
        box = found.box if limits is None else intersect(found.box, limits)
        told["box"] = None if box is None else [v for span in box for v in span]
        return self._reply(request, turn, found, limits, told)

    def _turn(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Turn:
        objects: CurrentObjects | None = None
        warnings: list[str] = []
        if self.objects.holds(image.path):
            objects, warnings = self.objects.open(item_id(image.path), image.shape)
        client, name = request.get("client_id") or "", request.get("label") or ""
        hierarchy, names = loaded.predictor.hierarchy, self.settings.labels.segment_names
        if name and (slip := slip_told(str(name), hierarchy, names)):
            warnings = [*warnings, slip]
        over = cast(Over, self.choice(request, "over"))
        kind = cast(Kind, self.choice(request, "kind"))
        return Turn(loaded, image, device, objects, warnings, str(client), str(name), over, kind)

    def _asked(self, request: dict[str, Any], turn: Turn, limits: Box | None) -> ViewerRequest:
        plane, size = section_of(request, turn.image), turn.image.voxel_size_nm
        positive, negative = (
            self._points(request, turn, what) for what in ("foreground", "background")
        )
        if limits is not None and not positive:  # a box is drawn around what is meant
            positive = box_points(turn.standing, limits, size)
        given = len(positive) + len(negative)
        positive, negative = (fewer_points(points, size) for points in (positive, negative))
        if (left := len(positive) + len(negative)) < given:
            turn.warnings.append(f"{left} points, spread over all, stand for the {given} given")
        if plane is not None:  # a two-dimensional request is about one section
            given = len(positive) + len(negative)
            positive, negative = ([p for p in ps if p[2] == plane] for ps in (positive, negative))
            if elsewhere := given - len(positive) - len(negative):
                turn.warnings.append(f"slice={plane}: {elsewhere} points of others were left out")
        return ViewerRequest(
            positive,
            negative,
            self._class_of(turn, request.get("label")),
            starting_mask(request, turn.image.shape),
            None if plane is None else (2, plane),
            self._kind_of(turn, turn.name),
            self.choice(request, "do") == "split",
        )

    def _points(self, request: dict[str, Any], turn: Turn, what: str) -> list[list[int]]:
        points = viewer_points(request.get(what), what)
        return inside_image(points, turn.image.shape, what, turn.warnings)

    def _kind_of(self, turn: Turn, name: str) -> Kind:
        hierarchy, labels = turn.loaded.predictor.hierarchy, self.settings.labels
        kind, told = clicked_kind(name, turn.kind, hierarchy, labels)
        turn.warnings.extend([told] if told else [])
        return kind

    def _class_of(self, turn: Turn, name: Any) -> int:
        return clicked_class(name, turn.loaded.predictor.hierarchy, self.settings.labels)

    def _answer(self, turn: Turn, asked: ViewerRequest) -> ClickAnswer:
        image, loaded = turn.image, turn.loaded
        asking = Asking(
            loaded.predictor,
            loaded.version,
            loaded.heads,
            image.seen,
            image.key,
            image.voxel_size_nm,
            self.cache,
            lambda: self.network.turn("click", turn.device),
            fragments_file(image.path.parent, item_id(image.path)),
        )
        drafts = self.drafts.others(turn.client, item_id(image.path), turn.name, asked.positive)
        names, standing = self.settings.labels.segment_names, turn.standing
        organelles = frozenset[int]()
        if standing is not None:
            organelles = organelles_of(standing, loaded.predictor.hierarchy, names)
        return asking.answer(standing, asked, drafts, turn.over, organelles)

    def _answered(
        self, turn: Turn, asked: ViewerRequest, found: ClickAnswer, name: str
    ) -> dict[str, Any]:
        """What the answer is; warnings say where it is not what was asked for."""
        hierarchy, objects = turn.loaded.predictor.hierarchy, turn.standing
        machine = np.zeros(1, np.uint8)
        if objects is not None:
            machine = self.objects.classes(item_id(turn.image.path), objects)
        names = self.settings.labels.segment_names
        told = answered(objects, asked, found, machine, hierarchy, names)
        if other := under_another_name(told, name, hierarchy, names):
            turn.warnings.append(other)
        if asked.kind == "auto" and told["kind"] == "organelle":
            turn.warnings.append(f"the answer is {told['words']}")
        return told

    def _note(self, turn: Turn, found: ClickAnswer) -> None:
        placed = Placed(found.mask, found.box)
        self.drafts.note(turn.client, item_id(turn.image.path), turn.name, placed)

    def _many(self, request: dict[str, Any], turn: Turn, limits: Box | None) -> Answer:
        """Points of several objects -> a map of all of them."""
        if (action := self.choice(request, "do")) != "answer":
            raise refuse(f"do: {action} is asked for one object at a time, with foreground points")
        denied, shape = self._points(request, turn, "background"), turn.image.shape
        named = {
            name: ViewerRequest(
                inside_image(points, shape, f"objects.{name}", turn.warnings),
                denied,
                self._class_of(turn, name),
                kind=self._kind_of(turn, name),
            )
            for name, points in named_points(request["objects"]).items()
        }
        told: dict[str, Any] = {}

        def find(name: str, asked: ViewerRequest) -> ClickAnswer:
            answer = self._answer(turn, asked)
            told[name] = self._answered(turn, asked, answer, name)
            return answer

        found = answer_many(named, find, turn.image.voxel_size_nm)
        labels = _tight(ClickAnswer(found.labels, found.box, found.warnings))  # type: ignore[arg-type]
        told = {"label_names": {name: n for n, name in enumerate(named, 1)}, "answered": told}
        return self._reply(request, turn, labels, limits, told, len(named))

    def _reply(
        self,
        request: dict[str, Any],
        turn: Turn,
        found: ClickAnswer,
        limits: Box | None,
        told: dict[str, Any],
        highest: int = 1,
    ) -> Answer:
        extension, dtype = result_extension(request), result_dtype(request, highest)
        box = found.box if limits is None else intersect(found.box, limits)
        affine, shape = turn.image.affine, turn.image.shape
        seen = found.mask if box is None else found.mask[_inner(box, found.box)]
        if found.mask.any() and (box is None or not seen.any()):
            turn.warnings.append("nothing of the answer lies in the region (roi)")
        if self.choice(request, "reply") == "box" and box is not None:
            # The map's own geometry says where it lies.
            values = np.asfortranarray(seen.astype(dtype))
            affine = cropped_affine(affine, box)
        else:
            values = placed(found, shape, limits, dtype)
        compress = bool(request.get("result_compress", True))
        file = write_label(values, affine, extension, compress=compress)
        params = {
            "label_names": {turn.name or "object": 1},
            "warnings": [*turn.warnings, *found.warnings],
            "windows": found.windows,
            "fragments": found.fragments,
            **told,
        }
        names: dict[str, int] = params["label_names"]
        clicked = {n: Clicked(seen == value, box) for n, value in names.items() if box is not None}
        return Answer(file, params, clicked=clicked)


def _tight(found: ClickAnswer) -> ClickAnswer:
    """The answer on the smallest box around what it found, whatever was looked at."""
    part = Placed(found.mask != 0, found.box).cut()
    if part is None:
        return found
    return replace(found, mask=found.mask[_inner(part.box, found.box)], box=part.box)


def _inner(box: Box, of: Box) -> tuple[slice, slice, slice]:
    """A part of a box as an index into what lies on it."""
    return box_slices(shift_box(box, minus(box_origin(of))))


def section_of(request: dict[str, Any], image: RequestImage) -> int | None:
    """The viewer's section that a two-dimensional request is about.

    Raises:
        HTTPException: 400 for a section that the image does not have.
    """
    value = request.get("slice")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < image.shape[2]:
        raise refuse(f"slice: expected 0 to {image.shape[2] - 1}, found {value!r}")
    return value


def placed(
    found: ClickAnswer,
    shape: Triple,
    limits: Box | None,
    dtype: type[np.unsignedinteger[Any]],
) -> NDArray[Any]:
    """(X, Y, Z) 0/1 on the image's own grid, nothing outside the region asked for."""
    # Fortran order is the file's: writing copies nothing.
    whole = np.zeros(shape, dtype, order="F")
    box = found.box if limits is None else intersect(found.box, limits)
    if box is not None:
        whole[box_slices(box)] = found.mask[_inner(box, found.box)]
    return whole
