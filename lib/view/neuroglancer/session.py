"""One person's work on one image: points, the answer to them, and what is made of it.

It knows nothing of the viewer; what it does is done by the functions that other viewers call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.clicks.answer import ClickAnswer
from lib.clicks.source import Kind
from lib.clicks.strokes import fewer_points
from lib.clicks.viewer import ViewerRequest
from lib.labels.segment_names import object_name
from lib.proofread.answering import shown
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.doubts import Doubt, region_around
from lib.proofread.editing import Editor, EditRequest
from lib.proofread.naming import organelles_of
from lib.proofread.replay import NONE
from lib.proofread.submitted import declare_annotated
from lib.queries.ledger import HandedOut, Ledger
from lib.queries.volumes import is_volume, item_around
from lib.view.neuroglancer.scene import VOLUME, Scene
from lib.volumes.boxes import Box, Triple, box_origin, describe_box
from lib.volumes.opened import RequestImage

DOUBTFUL = "doubtful"
"""The strategy under which places are entered as handed out."""


@dataclass
class Found:
    """What was computed for a box of the screen.

    Args:
        ids: (x, y, z) uint32 objects, 0 none; or classes, values of a `final` map.
        box: voxels of the image.
        classes: (N + 1,) fine class + 1 of each object; empty for classes.
    """

    ids: NDArray[np.uint32]
    box: Box
    classes: NDArray[np.uint8]

    def at(self, voxel: Triple) -> int:
        """The value at a voxel of the image; 0 outside of the box."""
        low = box_origin(self.box)
        place = tuple(v - o for v, o in zip(voxel, low, strict=True))
        inside = all(0 <= p < n for p, n in zip(place, self.ids.shape, strict=True))
        return int(self.ids[place]) if inside else NONE


@dataclass
class Session:
    """A person at an image.

    Args:
        scene: the image.
        client: who; edits and regions handed out are entered under this name.
        positive, negative: voxels that were clicked.
        drawn: voxels along strokes, positive and negative.
        answer: the object that they mean; None before the first.
        objects: what `find_objects` found last; classes: what `find_classes` found.
        doubt: the place that was last gone to.
        asked: a box that waits for being declared annotated by a second press.
        progress: told (windows done, windows in all) while a box is computed.
        kind: of object that points on an organelle mean.
    """

    scene: Scene
    client: str = ""
    positive: list[Triple] = field(default_factory=list)
    negative: list[Triple] = field(default_factory=list)
    drawn: tuple[tuple[Triple, ...], tuple[Triple, ...]] = ((), ())
    answer: ClickAnswer | None = None
    objects: Found | None = None
    classes: Found | None = None
    doubt: Doubt | None = None
    asked: Box | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    kind: Kind = "cell"
    _seen: set[tuple[str, int, int, Triple]] = field(default_factory=set)

    @property
    def image(self) -> RequestImage:
        """The image's voxels."""
        return self.scene.image

    def click(self, voxel: Triple, positive: bool) -> str:
        """A point, and the answer to all points so far."""
        self._check(voxel)
        (self.positive if positive else self.negative).append(voxel)
        return self.find()

    def find(self) -> str:
        """Answer the points and strokes.

        Raises:
            ValueError: there is no positive one.
        """
        positive, negative = self._points()
        if not positive:
            self.answer = None
            raise ValueError("no positive point yet: P on the object, or draw in the layer `yes`")
        begin = time.monotonic()
        objects = self._standing()
        asked, organelles = ViewerRequest(positive, negative, kind=self.kind), frozenset[int]()
        if objects is not None:
            desk = self.scene.desk
            organelles = organelles_of(objects, desk.hierarchy, desk.settings.labels.segment_names)
        self.answer = self.scene.asking().answer(objects, asked, organelles=organelles)
        voxels, passed = int(self.answer.mask.sum()), time.monotonic() - begin
        what = "an organelle" if self.answer.organelle >= 0 else "a cell"
        told = f"{what}, {voxels:,} voxels in {passed:.2f} s; F accepts, X splits, Escape clears"
        return "; ".join([told, *self.answer.warnings])

    def other_kind(self) -> str:
        """From now on points mean the organelle that they lie on, or again the cell around it."""
        self.kind = "organelle" if self.kind == "cell" else "cell"
        told = f"points mean {self.kind}s"
        return f"{told}; {self.find()}" if self._points()[0] else told

    def clear(self) -> str:
        """Forget points, strokes, answer and what was found."""
        self.positive, self.negative, self.drawn = [], [], ((), ())
        self.answer = self.asked = self.objects = self.classes = None
        return "cleared"

    def edit(self, action: str, voxel: Triple | None, name: str = "") -> str:
        """Accept, split, merge, delete, undo or redo.

        Without points, the object under the mouse is meant.

        Returns:
            What was done.

        Raises:
            ValueError: it cannot be done; says why.
        """
        objects = self._edited()
        positive, _ = self._points()
        if voxel is not None and action in ("merge", "delete", "name"):
            under = [list(voxel)]
            positive = positive + under if action == "merge" else under + positive
        if action == "accept" and not positive:
            return self._accept_under(objects, voxel)
        if action in ("accept", "split") and self.answer is None:
            self.find()
        edits = objects.standing().active
        pointed = [] if action in ("undo", "redo") else positive
        asked = EditRequest(action, pointed, name, self.client, self.kind)
        _, told = self._editor().run(objects, asked, self._answered)
        self._forget(objects)
        done = f"{action}: {told[action]}" if action in told else told["edit"]["did"]
        left = len(objects.standing().active)
        return f"{done} ({left} edit{'s' if left != 1 else ''} stand, {len(edits)} before)"

    def name_class(self, voxel: Triple, fine: int) -> str:
        """Say of which class the object under the mouse is."""
        objects = self._edited()
        (object_id,) = objects.at([voxel])
        if object_id == NONE:
            raise ValueError("no object under the mouse")
        name = object_name(1 << fine, object_id, self.scene.desk.hierarchy)
        return self.edit("name", voxel, name)

    def next_doubt(self) -> Doubt:
        """The next place to look at, entered as handed out.

        Raises:
            ValueError: there is none.
        """
        objects, item = self._edited(), self.scene.item
        desk = self.scene.desk
        assert item is not None and desk.queue is not None and desk.scores is not None
        if objects.machine is None:
            raise ValueError(f"{item.id} has no objects yet: run `instances` on it")
        ledger = Ledger(item.study.root, 60.0 * desk.settings.queries.reserve_minutes)
        taken = {e.box for e in ledger.recent() if e.item == item.id and e.client != self.client}
        for doubt in desk.queue.of(item.id, objects, item.voxel_size_nm):
            box = region_around(doubt.place, item.shape, desk.settings.queries.region)
            key = (doubt.kind, doubt.object, doubt.other, doubt.place)
            if key in self._seen or box in taken:
                continue
            self._seen.add(key)
            self.doubt = doubt
            with desk.scores.lock:
                ledger.add(HandedOut(item.id, box, self.client, DOUBTFUL, time.time()))
            return doubt
        raise ValueError("no place is in doubt: all was looked at, accepted, or is sure")

    def find_objects(self, box: Box) -> str:
        """Objects of a box, found anew; nothing of it is kept until it is accepted."""
        asking, image = self.scene.asking(), self.image
        with self.scene.desk.network.turn(VOLUME, self.scene.desk.device):
            found = asking.predictor.objects(
                image.seen, image.voxel_size_nm, self.progress, box=box
            )
        self.objects = Found(found.ids.astype(np.uint32), box, found.classes)
        return f"{found.count} objects in {describe_box(box)}; F over one accepts it"

    def find_classes(self, box: Box) -> str:
        """Classes of a box, at the level that viewers see (`inference.level`)."""
        image, desk = self.image, self.scene.desk
        level = desk.settings.inference.level
        with desk.network.turn(VOLUME, desk.device):
            if level == "object":
                asked = self.scene.object_level(box, self.progress)
                found = asked.classes(asked.cells())
            else:
                found = self.scene.asking().predictor.classes(
                    image.seen, image.voxel_size_nm, level, self.progress, box=box
                )
        self.classes = Found(found.astype(np.uint32), box, np.zeros(0, np.uint8))
        return f"classes of {describe_box(box)}, level {level}"

    def declare(self, box: Box) -> str:
        """Declare a box annotated as its objects stand; the second time of asking does it."""
        objects, item, desk = self._edited(), self.scene.item, self.scene.desk
        assert item is not None and desk.queue is not None
        if desk.undeclared:
            raise ValueError(desk.undeclared)
        count = len(objects.ids(box))
        if not count:
            raise ValueError(f"{describe_box(box)} holds no object: find and accept some first")
        if self.asked != box:
            self.asked = box
            return (
                f"{describe_box(box)}: {count} objects and their classes would count as right; "
                "T again declares it, Escape does not"
            )
        self.asked = None
        ids, classes = objects.read(box), desk.queue.classes(item.id, objects)
        inner = box
        if is_volume(item):
            item, inner = item_around(item.study, item, box, desk.settings.queries.view)
        done = declare_annotated(
            item, objects, ids, classes, inner, desk.settings.labels.segment_names, self.client
        )
        desk.taken_in()
        return f"{item.id}: {describe_box(inner)} is annotated, {len(done.objects)} objects"

    def _accept_under(self, objects: CurrentObjects, voxel: Triple | None) -> str:
        """Accept the object under the mouse as it stands, or as it was just found."""
        if voxel is None:
            raise ValueError("no point yet, and no object under the mouse")
        self._check(voxel)
        found, fine, placed = self.objects, 0, None
        (standing,) = objects.at([voxel])
        if standing != NONE:
            placed = shown(objects, standing)
        elif found is not None and (number := found.at(voxel)) != NONE:
            placed = Placed(found.ids == number, found.box).cut()
            fine = int(found.classes[number]) if number < len(found.classes) else 0
        if placed is None:
            raise ValueError("no object under the mouse")
        object_id = standing or objects.new_id()
        name = object_name(1 << fine - 1, object_id, self.scene.desk.hierarchy) if fine else ""
        free = placed.mask & ~objects.locked(placed.box, [object_id])
        edit = objects.accept(Placed(free, placed.box), object_id, name, self.client)
        return edit.described()

    def _points(self) -> tuple[list[list[int]], list[list[int]]]:
        size = self.scene.voxel_size_nm
        positive, negative = (
            fewer_points([*clicked, *strokes], size)
            for clicked, strokes in zip((self.positive, self.negative), self.drawn, strict=True)
        )
        return positive, negative

    def _answered(self) -> ClickAnswer:
        assert self.answer is not None
        return self.answer

    def _standing(self) -> CurrentObjects | None:
        objects = self.scene.current()
        return None if objects is None or objects.empty else objects

    def _edited(self) -> CurrentObjects:
        objects = self.scene.current()
        if objects is None:
            raise ValueError(
                f"{self.scene.name} is a file of no study: nothing can be kept. Make it an item: "
                "python main.py import SRC --lazy --studies DIR"
            )
        return objects

    def _editor(self) -> Editor:
        desk = self.scene.desk
        return Editor(desk.hierarchy, desk.settings.labels)

    def _forget(self, objects: CurrentObjects) -> None:
        """What was clicked is done with."""
        self.positive, self.negative, self.drawn, self.answer = [], [], ((), ()), None
        store = self.scene.desk.objects
        if store is not None:
            store.drafts.forget(self.client, self.scene.name)

    def _check(self, voxel: Sequence[int]) -> None:
        if not all(0 <= v < n for v, n in zip(voxel, self.scene.shape, strict=True)):
            raise ValueError("the mouse is beside the image")
