"""Clicks on an item put to the network: its features, what stands of its objects, one turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lib.clicks.answer import ClickAnswer
from lib.clicks.source import ClickSource, Kept
from lib.clicks.viewer import ViewerRequest, click_source, segment_in_viewer
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.fragment_store import load_fragments
from lib.prediction.predictor import Predictor
from lib.proofread.answering import Over, answer_clicks, of_kind
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.drafts import WithDrafts
from lib.volumes.contrast import LazyImage


@dataclass(frozen=True)
class Asking:
    """One image and the network that answers clicks on it.

    Args:
        predictor: the network.
        version: of its weights.
        heads: version of the study's heads on it; "" none.
        image: (X, Y, Z), read lazily.
        image_key: identity of the image; changes when its content does.
        voxel_size_nm: (x, y, z).
        cache: of features, shared by all.
        turn: waits for the device, for as long as the block lasts.
        fragments_file: where `instances` leaves the image's fragments; None: nowhere.
    """

    predictor: Predictor
    version: str
    heads: str
    image: LazyImage
    image_key: str
    voxel_size_nm: tuple[float, float, float]
    cache: FeatureCache
    turn: Callable[[], AbstractContextManager[None]]
    fragments_file: Path | None = None

    def answer(
        self,
        objects: CurrentObjects | None,
        request: ViewerRequest,
        drafts: Sequence[Placed] = (),
        over: Over = "free",
        organelles: Collection[int] = (),
    ) -> ClickAnswer:
        """The object that clicks mean, given what stands.

        Args:
            objects: of the item; None: there are none.
            request: of the viewer.
            drafts: what the same person was shown of other objects.
            over: "all" takes voxels of accepted objects as well.
            organelles: the objects that are some.
        """
        if objects is not None:
            objects = of_kind(objects, request.positive, request.kind, organelles)

        def find(asked: ViewerRequest) -> ClickAnswer:
            frame = self.predictor.frame(self.image.shape, self.voxel_size_nm)
            with self.turn():
                return segment_in_viewer(self._source(objects, drafts), frame, asked)

        return answer_clicks(objects, request, find, over, organelles)

    def _source(self, objects: CurrentObjects | None, drafts: Sequence[Placed]) -> ClickSource:
        standing = None
        if self.predictor.inference.click_fragments and objects is not None:
            standing = WithDrafts(objects, drafts)
        return click_source(
            self.predictor,
            self.version,
            self.image,
            self.image_key,
            self.predictor.frame(self.image.shape, self.voxel_size_nm),
            self.cache,
            standing,
            self._kept(),
            self.heads,
        )

    def _kept(self) -> Kept | None:
        """The fragments of the whole image, if they are of this network and this image."""
        path = self.fragments_file
        if path is None or not path.exists():
            return None
        made_of = f"{self.version} {self.image_key}"
        return str(path.stat().st_mtime_ns), partial(load_fragments, path, made_of)
