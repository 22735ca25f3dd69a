"""A run from weights goes on with the recipe that they were made with.

Losses, prompts, optimiser and averaging are inherited from the file; what was set for the run
wins; the budget (epochs, rate, schedule, seed) is the run's own. A run from scratch has the
specification's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.configs.settings import Section, Settings
from lib.networks.weights import with_shape_of

INHERITED: dict[str, tuple[str, ...] | None] = {
    "loss": None,
    "training": (
        "num_pos_points",
        "num_neg_points",
        "point_sample_mode",
        "vary_points",
        "fractionary_prompts",
        "error_rounds",
        "weight_decay",
        "gradient_clip",
        "ema_decay",
    ),
    "data": ("patch_size", "appearance", "inverted"),
}
"""Section -> the keys that are the weights' recipe; None: all of them."""

SET, RECIPE, DEFAULT = "set for this run", "recipe of the weights", "default"

Origins = dict[str, str]


def with_recipe_of(settings: Settings, data: Mapping[str, Any]) -> tuple[Settings, Origins]:
    """Settings that go on with the recipe stored in a weights file.

    Args:
        settings: the run's; keys that were set explicitly stay as they are.
        data: from `load_weights`.

    Returns:
        the settings, and where each of their values comes from.
    """
    origins = origins_of(settings)
    shaped = with_shape_of(settings, data)
    changed: dict[str, Section] = {}
    for name, wanted in INHERITED.items():
        section: Section = getattr(shaped, name)
        own = getattr(settings, name).model_fields_set
        fields = type(section).model_fields
        saved = data["settings"].get(name, {})
        found = {
            key: value
            for key, value in saved.items()
            if key in fields and key not in own and (wanted is None or key in wanted)
        }
        whole = type(section).model_validate({**section.model_dump(), **found})
        changed[name] = section.model_copy(update={key: getattr(whole, key) for key in found})
        origins.update({f"{name}.{key}": RECIPE for key in found})
    shape = set(data["settings"]["model"]) & set(type(shaped.model).model_fields)
    for key in shape - settings.model.model_fields_set - {"pretrained_encoder"}:
        origins[f"model.{key}"] = RECIPE
    return shaped.model_copy(update=changed), origins


def origins_of(settings: Settings) -> Origins:
    """Where each value comes from before any weights are asked: set, or the default."""
    return {
        f"{name}.{key}": SET if key in section.model_fields_set else DEFAULT
        for name, section in settings
        for key in type(section).model_fields
    }


def told(settings: Settings, origins: Mapping[str, str]) -> str:
    """One sentence for the log: what differs from the defaults, and why."""
    plain, parts = Settings(), []
    for origin in (SET, RECIPE):
        named = []
        for path, found in origins.items():
            section, _, key = path.partition(".")
            value = getattr(getattr(settings, section), key)
            if found == origin and value != getattr(getattr(plain, section), key):
                named.append(f"{path} {value}")
        if named:
            parts.append(f"{origin}: {', '.join(named)}")
    return "; ".join(parts) or "all settings at their defaults"
