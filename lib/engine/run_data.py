"""What a run sees of its studies: patches to train on, and the places that judge its weights."""

from __future__ import annotations

from lib.configs.settings import Settings
from lib.data.batches import Batch, collate
from lib.data.items import DataItem
from lib.data.patch_shapes import network_patch
from lib.data.positions import taught_by_tissue
from lib.data.sampler import PatchSampler
from lib.engine.judge import OLD_PLACES
from lib.engine.options import RunOptions, load_items
from lib.engine.validation import Place, readable_places, validation_places

NOTHING_VALIDATES = (
    "a handful of voxels is annotated in one place: nothing can be held back to tell whether "
    "training helps; annotate a second place and submit it, or train without publishing"
)

BatchGroup = tuple[int, list[Batch]]
"""A step's number and its accumulated batches."""


class RunData:
    """Patches and places of a run.

    Args:
        settings: of the run.
        options: name the studies and the rehearsal data.
        rank: of this process; each fills its own places of the global batch.

    Raises:
        ValueError: nothing is annotated, or nothing can tell whether weights get better.
    """

    def __init__(self, settings: Settings, options: RunOptions, rank: int) -> None:
        self.settings = settings
        items = load_items(settings, options.studies, options.note)
        if not items:
            roots = ", ".join(str(root) for root in options.studies)
            raise ValueError(
                f"nothing to train on: no annotated item in {roots}; expected at least one item "
                "with a label; annotate and submit one, or import a labelled volume"
            )
        rehearsal = () if options.rehearsal is None else (options.rehearsal,)
        rehearsed = load_items(settings, rehearsal)
        patch_size = network_patch(settings.data.patch_size, settings.model.spatial_dims)
        self.sampler = _sampler(items, rehearsed, patch_size, settings, options)
        places = validation_places(items, patch_size, options.validation_limit)
        self.places: list[Place] = readable_places(places, options.note)
        if options.published is not None and options.published.exists() and not self.places:
            raise ValueError(NOTHING_VALIDATES)
        old = validation_places(rehearsed, patch_size, OLD_PLACES)
        self.old_places: list[Place] = readable_places(old, options.note)
        size = settings.training.batch_size
        self.batch_places = range(rank * size, (rank + 1) * size)

    def place_names(self) -> list[str]:
        """What identifies the places: scores on others cannot be compared."""
        return [f"{place.item.id} {place.box}" for place in self.places]

    def batches(self, step: int) -> BatchGroup:
        """A step's batches; a function of the seed, the step and this process's rank."""
        accumulate = self.settings.training.accumulate
        dims = self.settings.model.spatial_dims
        return step, [
            collate(self.sampler.batch(step * accumulate + k, self.batch_places), dims)
            for k in range(accumulate)
        ]

    def classes_taught(self) -> set[str]:
        """Names of the classes that real tissue among the patches teaches."""
        return set(taught_by_tissue((e.item, e.strata) for e in self.sampler.entries))

    def told(self) -> str:
        """How many sources and places there are, for the run's log."""
        return (
            f"{len(self.sampler.entries)} sources of patches, {len(self.places)} validation places"
        )

    def shares_told(self) -> str:
        """Which groups the patches come from."""
        shares = self.sampler.group_shares()
        return "patches from " + ", ".join(f"{g} {s:.0%}" for g, s in shares.items())


def _sampler(
    items: list[DataItem],
    rehearsed: list[DataItem],
    patch_size: tuple[int, int, int],
    settings: Settings,
    options: RunOptions,
) -> PatchSampler:
    data = settings.data
    return PatchSampler(
        [*items, *rehearsed],
        patch_size,
        settings.training.seed,
        data.augment,
        data.group_weights,
        data.appearance,
        data.inverted,
        {item.group: options.rehearsal_share for item in rehearsed},
        options.note,
    )
