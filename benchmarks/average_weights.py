"""Average two weights files of one run: what a later phase gained, without all that it lost.

    python benchmarks/average_weights.py EARLIER.pt LATER.pt --share 0.75 --out model/neuropil.pt

Weights that a training went through lie in one basin, and a mean of two keeps most of what each
is good at: here the later file's boundaries, and the earlier one's hold on classes and on images of
other contrast. Parts that a later phase added count as new in the earlier file, where they say
nothing; the layers inside them are the later file's, for a mean with random ones is neither's.

Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.configs.settings import Settings  # noqa: E402
from lib.labels.hierarchy import LabelHierarchy  # noqa: E402
from lib.networks.weights import (  # noqa: E402
    check_fits,
    load_weights,
    save_weights,
    saved_hierarchy,
    with_new_parts,
)

WITHIN = "backbone.fine.layers."
"""Layers of a new part before its last one, which is what makes it say nothing."""


def mean_of(
    earlier: Mapping[str, Tensor], later: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """(1 - share) times one state, share times the other; what is no float is the later one's."""
    assert earlier.keys() == later.keys()
    return {
        k: ((1 - share) * earlier[k].float() + share * b.float()).to(b.dtype)
        if b.is_floating_point()
        else b
        for k, b in later.items()
    }


def with_parts_of(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    settings: Settings,
    hierarchy: LabelHierarchy,
) -> dict[str, Any]:
    """The earlier file with the parts of the later one that it lacks, saying nothing."""
    grown = with_new_parts(first, settings, hierarchy)
    within = {
        key: value
        for key, value in second["model"].items()
        if key.startswith(WITHIN) and key not in first["model"]
    }
    return {**grown, "model": {**grown["model"], **within}}


def main() -> int:
    """Write the mean, with the later file's settings and hierarchy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("earlier", type=Path)
    parser.add_argument("later", type=Path)
    parser.add_argument("--share", type=float, default=0.75, help="of the later file")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        if not 0 <= args.share <= 1:
            raise ValueError(f"--share: found {args.share}, expected 0 to 1")
        first, second = load_weights(args.earlier), load_weights(args.later)
        settings = Settings.model_validate(second["settings"])
        hierarchy = saved_hierarchy(second)
        first = with_parts_of(first, second, settings, hierarchy)
        check_fits(args.earlier, first, settings, hierarchy)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    metas = [dict(data.get("meta", {})) for data in (first, second)]
    steps = [meta.get("step") for meta in metas]
    meta = {"step": steps[1], "mean_of_steps": steps, "share_of_later": args.share}
    if learned := sorted({c for m in metas for c in m.get("classes_learned", ())}):
        meta["classes_learned"] = learned
    state = mean_of(first["model"], second["model"], args.share)
    save_weights(args.out, state, settings, hierarchy, meta)
    print(f"{args.out}: {1 - args.share:g} x step {steps[0]} + {args.share:g} x step {steps[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
