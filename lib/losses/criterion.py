"""The criterion: every term of the loss, weighted, under the names it is logged by."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lib.configs.settings import LossSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.losses.affinity import affinity_term
from lib.losses.agreement import agreement_term
from lib.losses.geometry import geometry_terms
from lib.losses.instance import instance_terms
from lib.losses.near import near_term
from lib.losses.semantic import coarse_term, fine_terms
from lib.networks.pair_logits import pair_logits
from lib.targets.prepare import Targets


class Criterion:
    """loss = w_sem L_sem + w_ins L_ins + w_geom L_geom + w_affinity L_aff.

    Computes in float32 whatever the network's precision (float64 stays float64). A term or
    branch of weight 0 costs nothing and is absent from the result. Unknown voxels get exactly
    zero gradient; a batch of unknown voxels has loss 0.

    Args:
        loss: weights and margins.
        hierarchy: classes and groups.

    Source: spec/training-modes.md sections 1 and 4, spec/clarifications.md.
    """

    def __init__(self, loss: LossSettings, hierarchy: LabelHierarchy) -> None:
        self.loss = loss
        self.hierarchy = hierarchy

    def __call__(self, outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Compute the loss of one mode.

        Args:
            outputs: "semantic" (B, C, *S), "coarse" (B, K, *S), "instance" (B, E, *S),
                "geometry" (B, S + S * S + 4, *S), "affinity" (B, A, *S), the ones whose branch
                has a weight;
                optional "semantic_ids" (B, *S) int64, which makes the instance loss run for
                each class by itself.
            targets: from `prepare_targets` with the same settings.

        Returns:
            Scalars: "loss", "loss_sem", "loss_sem/ce", "loss_sem/iou", "loss_sem/dice",
            "loss_sem/coarse", "loss_ins", "loss_ins/pull", ..., "loss_geom/raw", "loss_aff".
            Parts are unweighted, and so is "loss_aff"; "loss_sem", "loss_ins" and
            "loss_geom" are weighted sums of theirs.
        """
        with torch.autocast(targets.known.device.type, enabled=False):
            branches = {
                "sem": (self.loss.weight_semantic, self._semantic),
                "ins": (self.loss.weight_instance, self._instance),
                "geom": (self.loss.weight_geometry, self._geometry),
            }
            result: dict[str, Tensor] = {}
            total: Tensor | None = None
            for name, (weight, compute) in branches.items():
                if weight == 0:
                    continue
                terms = compute(outputs, targets)
                if not terms:
                    continue
                branch = sum(
                    (getattr(self.loss, f"weight_{key}") * value for key, value in terms.items()),
                    start=next(iter(terms.values())).new_zeros(()),
                )
                result |= {f"loss_{name}": branch}
                result |= {f"loss_{name}/{key}": value for key, value in terms.items()}
                total = weight * branch if total is None else total + weight * branch
            if self.loss.weight_affinity > 0:
                assert targets.pairs is not None
                embedding = _full(outputs["instance"])
                logits = pair_logits(_full(outputs["affinity"]), embedding, targets.voxel_size_nm)
                affinity = affinity_term(logits, targets.pairs)
                result["loss_aff"] = affinity
                weighted = self.loss.weight_affinity * affinity
                total = weighted if total is None else total + weighted
            if total is None:
                raise ValueError(
                    "loss: every weight is 0, nothing would be trained; set at least one of "
                    "weight_semantic, weight_instance, weight_geometry, weight_affinity above 0"
                )
            return {"loss": total, **result}

    def _semantic(self, outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        loss, terms = self.loss, {}
        overlap = loss.weight_iou > 0 or loss.weight_dice > 0
        if loss.weight_ce > 0 or overlap:
            excluded = loss.overlap_region == "excluded"
            ce, iou, dice = fine_terms(_full(outputs["semantic"]), targets, overlap, excluded)
            values = {"ce": ce, "iou": iou, "dice": dice}
            terms = {
                key: value
                for key, value in values.items()
                if value is not None and getattr(loss, f"weight_{key}") > 0
            }
        if loss.weight_coarse > 0 and self.hierarchy.num_groups > 0:
            terms["coarse"] = coarse_term(_full(outputs["coarse"]), targets)
        if loss.weight_agreement > 0:
            terms["agreement"] = agreement_term(_full(outputs["semantic"]), targets)
        return terms

    def _instance(self, outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        embedding = _full(outputs["instance"], planes=False)
        terms = instance_terms(embedding, targets, self.loss, outputs.get("semantic_ids"))
        if self.loss.weight_near > 0:
            terms["near"] = near_term(embedding, targets, self.loss)
        return terms

    def _geometry(self, outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        return geometry_terms(_full(outputs["geometry"]), targets, self.loss)


def _full(values: Tensor, planes: bool = True) -> Tensor:
    """float32 at least; with `planes` laid out channel by channel, as most terms read fastest."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    layout = torch.contiguous_format if planes else torch.preserve_format
    return values.to(dtype, memory_format=layout)
