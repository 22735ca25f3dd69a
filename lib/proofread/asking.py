"""Clicks on an item put to the network: its features, what stands of its objects, one turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lib.clicks.answer import ClickAnswer
from lib.clicks.source import ClickSource
from lib.clicks.viewer import ViewerRequest, click_source, segment_in_viewer
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.predictor import Predictor
from lib.proofread.answering import Over, answer_clicks
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
    """

    predictor: Predictor
    version: str
    heads: str
    image: LazyImage
    image_key: str
    voxel_size_nm: tuple[float, float, float]
    cache: FeatureCache
    turn: Callable[[], AbstractContextManager[None]]

    def answer(
        self,
        objects: CurrentObjects | None,
        request: ViewerRequest,
        drafts: Sequence[Placed] = (),
        over: Over = "free",
    ) -> ClickAnswer:
        """The object that clicks mean, given what stands.

        Args:
            objects: of the item; None: there are none.
            request: of the viewer.
            drafts: what the same person was shown of other objects.
            over: "all" takes voxels of accepted objects as well.
        """

        def find(asked: ViewerRequest) -> ClickAnswer:
            frame = self.predictor.frame(self.image.shape, self.voxel_size_nm)
            with self.turn():
                return segment_in_viewer(self._source(objects, drafts), frame, asked)

        return answer_clicks(objects, request, find, over)

    def _source(self, objects: CurrentObjects | None, drafts: Sequence[Placed]) -> ClickSource:
        inference = self.predictor.inference
        fragments = None
        if inference.click_fragments and objects is not None:
            fragments = WithDrafts(objects, drafts)
        return click_source(
            self.predictor.net,
            self.version,
            self.image,
            self.image_key,
            self.predictor.frame(self.image.shape, self.voxel_size_nm),
            self.cache,
            inference,
            fragments,
            self.heads,
        )
