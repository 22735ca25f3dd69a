"""Batch inference on a machine without several GPUs: the stock default divides by their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask


class BatchInfer(BatchInferTask):
    """One inference after the other on one device, unless there are GPUs to share them."""

    def __call__(
        self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]
    ) -> Any:
        gpus = torch.cuda.device_count()
        request = {"max_workers": 1, **request}
        request["multi_gpu"] = bool(request.get("multi_gpu", gpus > 1)) and gpus > 1
        if not gpus:
            request["device"] = "cpu"
        return super().__call__(request, datastore, infer)
