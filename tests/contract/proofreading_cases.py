"""An image in which the machine found five objects, and the requests that correct them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import requests
from monailabel.client import MONAILabelClient
from numpy.typing import NDArray

from tests.conftest import Server
from tests.contract.conftest import SLICER, write_nifti

ITEM = "proofed"
SHAPE = (64, 64, 16)


@contextmanager
def proofed(server: Server) -> Iterator[Path]:
    """An image in which the machine found four columns, numbered 1 to 4, and one more, 5."""
    source = server.studies / "synthetic-000.nii"
    with source.open("rb") as file:
        requests.put(
            f"{server.url}/datastore/image", params={"image": ITEM},
            files={"file": ("proofed.nii", file)}, timeout=60,
        )  # fmt: skip
    path = server.studies / f"{ITEM}.nii"
    found = server.studies / "labels" / "instance_predicted" / f"{ITEM}.nii.gz"
    found.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(found, columns(), path)
    yield path
    requests.delete(f"{server.url}/datastore/image", params={"id": ITEM}, timeout=60)
    found.unlink(missing_ok=True)
    assert not (server.studies / "edits" / ITEM).exists()


def columns() -> NDArray[np.uint32]:
    """The machine's objects."""
    ids = np.zeros(SHAPE, np.uint32)
    for n in range(5):
        ids[12 * n + 2 : 12 * n + 12, 4:60, 2:14] = n + 1
    return ids


def inside(n: int) -> list[int]:
    """A point inside column n."""
    return [12 * (n - 1) + 6, 30, 8]


def click(client: MONAILabelClient, *positive: Any, **params: Any) -> tuple[NDArray[Any], Any]:
    """The mask that a click gives, and what is told of it."""
    asked = {**SLICER, "foreground": [list(p) for p in positive], **params}
    file, told = client.infer("proofread", ITEM, asked)
    return nrrd.read(file)[0] != 0, told


def submit(
    client: MONAILabelClient,
    folder: Path,
    labels: NDArray[Any],
    like: Path,
    names: list[str],
    **more: Any,
) -> dict[str, Any]:
    """Send a label map of named segments."""
    info = [{"name": name, "idx": n} for n, name in enumerate(names, 1)]
    file = write_nifti(folder / "label.nii.gz", labels.astype(np.uint8), like)
    return dict(client.save_label(ITEM, str(file), "", {"label_info": info, **more}))
