"""Batch inference: every image that can be read, on machines without several GPUs as well.

The stock task ends at the first image that cannot be read, and divides by the number of GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

logger = logging.getLogger("neuropil.batch")


class BatchInfer(BatchInferTask):
    """One inference after the other on one device, unless there are GPUs to share them.

    An image that cannot be used is left out and named; where none can, the first reason is
    raised.
    """

    def __call__(
        self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]
    ) -> Any:
        gpus = torch.cuda.device_count()
        # The stock default is an enumeration, whose text is no name of a folder.
        request = {"max_workers": 1, "label_tag": "original", **request}
        request["multi_gpu"] = bool(request.get("multi_gpu", gpus > 1)) and gpus > 1
        if not gpus:
            request["device"] = "cpu"
        faults: list[Exception] = []

        def infer_or_name(asked: dict[str, Any], store: Datastore) -> Any:
            try:
                return infer(asked, store)
            except Exception as error:
                faults.append(error)
                reason = str(getattr(error, "detail", error)) or type(error).__name__
                logger.warning("left out: %s: %s", asked["image"], reason)
                return {"skipped": reason}

        found = super().__call__(request, datastore, infer_or_name)
        if faults and len(faults) == len(found):
            raise faults[0]
        return found
