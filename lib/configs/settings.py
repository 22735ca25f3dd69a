"""Typed settings: every key of the configuration, its type, its range and its meaning.

The keys of `loss` and `training` are those of spec/training-modes.md section 5. Unknown keys
and bad values stop the start (see lib/configs/load.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Mode = Literal["automatic", "proofread"]


_Off = BeforeValidator(lambda value: "off" if value is False else value)  # YAML's `off`
Precision = Annotated[Literal["auto", "off", "bfloat16", "float16"], _Off]
Compiler = Annotated[Literal["off", "inductor", "aot_eager"], _Off]


class Section(BaseModel):
    """A group of settings: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LossSettings(Section):
    """Weights and margins of the criterion (spec/training-modes.md sections 4 and 5)."""

    weight_semantic: Weight = 1.0
    weight_instance: Weight = 1.0
    weight_geometry: Weight = 1.0  # 0.0 disables the geometry head

    weight_ce: Weight = 1.0
    weight_iou: Weight = 1.0
    weight_dice: Weight = 1.0
    # Voxels that IoU and Dice see: of exactly one class, or also those known not to be it.
    overlap_region: Literal["single", "excluded"] = "single"
    weight_agreement: Weight = 0.0  # one class for all of a cell, see lib/losses/agreement.py
    weight_coarse: Weight = 0.2  # lambda_coarse of spec/hierarchical-supervision.md

    weight_pull: Weight = 1.0
    weight_push: Weight = 1.0
    weight_norm: Weight = 0.001
    weight_near: Weight = 0.0  # pairs a few voxels apart, see lib/losses/near.py
    near_reach: tuple[Count, ...] = (3, 8)  # partners beside the next voxel, in finest voxels
    delta_v: Positive = 0.5  # pull hinge margin
    delta_d: Positive = 1.5  # centroids are pushed apart by 2 * delta_d
    weight_edge: Annotated[float, Field(ge=1.0)] = 10.0
    weight_bone: Annotated[float, Field(ge=1.0)] = 10.0

    weight_dir: Weight = 1.0
    weight_cov: Weight = 1.0
    weight_raw: Weight = 1.0
    dir_target: Literal["centroid", "skeleton"] = "centroid"
    cov_sigma_nm: Positive = 40.0  # smoothing of the structure tensor
    raw_region: Literal["foreground", "known"] = "foreground"

    weight_prompt: Weight = 0.0  # mask head of the prompted object; 0.0 drops the head
    weight_affinity: Weight = 0.0  # affinity head, see lib/losses/affinity.py; 0.0 drops the head


class TrainingSettings(Section):
    """How a run trains (spec/training-modes.md section 5, and the run's budget)."""

    training_modes: tuple[Mode, ...] = ("automatic", "proofread")
    num_pos_points: Count = 5
    num_neg_points: Annotated[int, Field(ge=0)] = 5
    point_sample_mode: Literal["class", "instance"] = "instance"
    vary_points: bool = False  # 1 .. num_pos_points and 0 .. num_neg_points, as annotators click
    fractionary_prompts: bool = True
    # Up to so many points lie in errors of the answer so far, instead of anywhere; 0: none do.
    error_rounds: Annotated[int, Field(ge=0)] = 0

    max_epochs: Annotated[int, Field(ge=1, le=10**6)] = 50
    steps_per_epoch: Annotated[int, Field(ge=1, le=10**6)] = 100
    batch_size: Count = 1
    accumulate: Count = 1  # batches per optimiser step
    learning_rate: Positive = 1e-3
    weight_decay: Weight = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    schedule: Literal["constant", "cosine"] = "cosine"
    gradient_clip: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # 0.0: no averaged weights
    amp: Precision = "auto"
    checkpoint_activations: bool = False
    compile: Compiler = "off"  # the backbone, by torch.compile
    val_interval: Count = 5  # epochs between validations
    image_interval: Count = 5  # epochs between pictures
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    seed: int = 0
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _some_mode(self) -> TrainingSettings:
        if not self.training_modes:
            raise ValueError("training_modes: at least one of automatic, proofread")
        if len(set(self.training_modes)) != len(self.training_modes):
            raise ValueError(f"training_modes: listed twice in {list(self.training_modes)}")
        slots = self.num_pos_points + self.num_neg_points - 1
        if self.error_rounds > slots:
            raise ValueError(
                f"error_rounds: {self.error_rounds}; expected at most {slots}, num_pos_points + "
                "num_neg_points - 1"
            )
        return self


class ModelSettings(Section):
    """The network's shape; a checkpoint fits only the settings it was made with."""

    backbone: Literal["segresnet", "vista3d"] = "segresnet"
    spatial_dims: Literal[2, 3] = 3
    feature_size: Annotated[int, Field(ge=8)] = 16  # width of the backbone's first level
    head_size: Annotated[int, Field(ge=4)] = 16  # features F handed to heads and prompts
    fine_features: Annotated[int, Field(ge=0)] = 0  # width of the full-resolution path; 0: none
    section_ratio: Annotated[int, Field(ge=1)] = 4  # downsample in plane first, up to this ratio
    finest_nm: Annotated[float, Field(ge=0.0)] = 10.0  # voxels up to half of this are binned
    most_split: Count = 3  # those of volumes from twice this on are split, into so many at most
    embedding_size: Annotated[int, Field(ge=2)] = 8
    norm: Literal["group", "instance"] = "group"
    pretrained_encoder: str | None = None  # a local file with published VISTA3D weights


class LabelSettings(Section):
    """Where the classes come from."""

    hierarchy: str = "default"  # "default", "none", or a YAML file
    num_classes: Count = 2  # used by hierarchy: none
    segment_names: dict[str, str] = {}  # a viewer's segment name -> a class or group name


class DataSettings(Section):
    """Patches and augmentation."""

    patch_size: tuple[Count, Count, Count] = (128, 128, 32)  # x, y, z in network voxels
    spacing_unit: Literal["nm", "um", "mm"] = "nm"  # of files without a record of ours
    bright_membranes: bool = False  # of images whose record does not say
    augment: bool = True
    appearance: Weight = 1.0  # strength of augmented contrast, brightness, shading and gamma
    inverted: Fraction = 0.0  # share of patches of inverted contrast
    group_weights: dict[str, Weight] = {}  # group of items -> factor on its share of the patches
    cache_bytes: Annotated[int, Field(ge=0)] = 2 * 2**30


class InferenceSettings(Section):
    """Sliding window, decoding and the click cache."""

    window: tuple[Count, Count, Count] = (160, 160, 32)
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    batch_size: Count = 1  # windows predicted at once
    tile_bytes: Count = 2**30  # most outputs held at once
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    mirror: bool = False  # average over mirrored views, four times the cost
    level: Literal["object", "fine", "coarse", "fallback"] = "object"
    fallback_fine: Fraction = 0.5  # below this fine probability ...
    fallback_coarse: Fraction = 0.7  # ... and above this group probability: report the group
    cache_bytes: Annotated[int, Field(ge=0)] = 2 * 2**30
    click_window: tuple[Count, Count, Count] = (160, 160, 24)
    click_window_limit: tuple[Count, Count, Count] = (480, 480, 96)
    click_fragments: bool = True  # clicks start from the objects that `instances` found
    min_object_voxels: Annotated[int, Field(ge=0)] = 50  # smaller cells join a neighbour
    object_threshold: Fraction = 0.5  # probability of "can be an object" that makes foreground
    affinity_margin: Positive = 1.95  # embedding distance at which a pair is undecided
    class_weight: Weight = 0.0  # how much different kinds of class push a pair apart
    sheath_weight: Weight = 0.5  # how much myelin and what is none push a pair apart
    long_range: tuple[Count, ...] = (3, 9)  # partners, in voxels of the finest axis
    instance_block: tuple[Count, Count, Count] = (384, 384, 128)  # fragments are made by block
    instance_overlap: Count = 80  # voxels of the finest axis that blocks share

    @property
    def voxel_level(self) -> Literal["fine", "coarse", "fallback"]:
        """The level where voxels are told one by one, without objects."""
        return "fine" if self.level == "object" else self.level


class QuerySettings(Section):
    """What to annotate next (lib/queries)."""

    region: tuple[Count, Count, Count] = (64, 64, 16)  # most voxels of a region, sections last
    view: tuple[Count, Count, Count] = (256, 256, 64)  # of an item made around a region of a volume
    score_at_start: bool = True  # the server scores what has no scores, in the background
    annotated_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5  # known: counts as done
    reserve_minutes: Weight = 30.0  # a region handed out is offered to nobody else so long
    class_share: Fraction = 0.67  # of uncertainty queries that go by one class
    sharpness: tuple[Positive, Positive] = (1.0, 100.0)  # power noise: first and settled queries
    settle_after: Count = 50  # queries until the noise has decayed
    diverse_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25  # most uncertain regions kept


class BlockSettings(Section):
    """How volumes larger than memory are cut (lib/blocks)."""

    core: tuple[Count, Count, Count] = (480, 480, 120)  # network voxels that one block writes
    chunk: tuple[Count, Count, Count] = (96, 96, 24)  # network voxels that viewers read at once
    tile_bytes: Count = 2**28  # most outputs that one worker holds at once


class AdaptationSettings(Section):
    """What is learned from each submission at once (lib/adaptation)."""

    enabled: bool = True
    steps: Count = 200  # of the optimiser, a refit
    learning_rate: Positive = 3e-2
    width: Count = 64  # hidden channels of the study's heads
    rehearsal_weight: Weight = 0.5  # of rows of the training data, beside the study's
    unknown_weight: Weight = 1.0  # of unknown voxels staying as they are, see docs/learning.md
    most_rows: Count = 40_000  # known voxels that are learned from, per item
    most_windows: Count = 48  # whose features are computed for a refit, over all items
    most_object_voxels: Count = 8_000_000  # around marked objects that calibrate the grouping
    rehearsal_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25  # of `combined`'s patches
    reply_seconds: Weight = 3.0  # so long the answer to a submission waits for the refit


class ServerSettings(Section):
    """What the server lets in."""

    max_upload_bytes: Annotated[int, Field(ge=1)] = 4 * 2**30
    busy_timeout_seconds: Positive = 600.0
    follow_links: bool = False  # serve links that lead out of the studies
    submission_seconds: Positive = 120.0  # most a small image's submission is derived for


class ViewSettings(Section):
    """Neuroglancer (lib/view/neuroglancer)."""

    enabled: bool = True  # the server offers it, on a port of its own
    port: Annotated[int, Field(ge=0, le=65535)] = 0  # of Neuroglancer's server; 0: any free one
    viewers: Count = 16  # most that are open at once; the oldest goes
    region: tuple[Count, Count, Count] = (256, 256, 32)  # most voxels of a screen, sections last


class Settings(Section):
    """The whole configuration."""

    loss: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()
    model: ModelSettings = ModelSettings()
    labels: LabelSettings = LabelSettings()
    data: DataSettings = DataSettings()
    inference: InferenceSettings = InferenceSettings()
    queries: QuerySettings = QuerySettings()
    blocks: BlockSettings = BlockSettings()
    adaptation: AdaptationSettings = AdaptationSettings()
    server: ServerSettings = ServerSettings()
    view: ViewSettings = ViewSettings()

    @model_validator(mode="after")
    def _errors_have_a_head(self) -> Settings:
        if self.training.error_rounds and not self.loss.weight_prompt:
            raise ValueError(
                f"training.error_rounds: {self.training.error_rounds} needs the mask head, whose "
                "errors it looks for; expected loss.weight_prompt above 0, or error_rounds 0"
            )
        return self
