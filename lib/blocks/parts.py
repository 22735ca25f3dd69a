"""What blocks say of objects, kept beside the output until all blocks are there.

.neuropil/parts/X-Y-Z.part.npz      contacts and votes of one block
.neuropil/parts/X-Y-Z.faces.npz     what its contacts with the next blocks need,
                                    removed when the run is whole
.neuropil/parts/X-Y-Z.between.npz   these contacts
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.blocks.contacts import Contacts, Face, Ids, face_contacts, joined
from lib.blocks.fragments import Part
from lib.blocks.plan import FOLDER
from lib.prediction.graph import REACHES, BlockContacts
from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import Triple
from lib.volumes.errors import VolumeError


def save_part(out: Path, index: Triple, part: Part) -> None:
    """Keep what a block says until all blocks are there."""
    votes = {"voted": part.voted, "votes": part.votes, "background": part.background}
    faces: dict[str, NDArray[Any]] = {}
    for axis, face in enumerate(part.faces):
        faces[f"offsets{axis}"] = np.array(face.offsets, np.int64).reshape(-1, 3)
        faces |= {f"low{axis}": face.low, f"high{axis}": face.high}
        faces[f"affinities{axis}"] = face.affinities
    with StagedFiles() as staged:
        np.savez_compressed(staged.create(_path(out, "faces", index)), **faces)
        own = staged.create(_path(out, "part", index))
        np.savez_compressed(own, **votes, **_arrays(part.contacts))
        staged.commit()


def contacts_between(
    out: Path, index: Triple, blocks: Container[Triple], voxel_size_nm: tuple[float, float, float]
) -> int:
    """Count the contacts of a block with the next ones along each axis; both have their parts.

    Args:
        blocks: the indices of all blocks.

    Returns:
        How many contacts there are.

    Raises:
        VolumeError: a part is not there.
    """
    found = []
    for axis in range(3):
        x, y, z = (i + (a == axis) for a, i in enumerate(index))
        following = _path(out, "faces", (x, y, z))
        if (x, y, z) in blocks:
            one, other = _load_face(_path(out, "faces", index), axis), _load_face(following, axis)
            found.append(face_contacts(one, other, axis, voxel_size_nm))
    edges = joined([f.edges for f in found], 2).astype(np.uint64)
    stats = tuple(
        (
            joined([f.stats[r][0] for f in found], 2).astype(np.uint64),
            joined([f.stats[r][1] for f in found], 5),
        )
        for r in range(len(REACHES))
    )
    with StagedFiles() as staged:
        file = staged.create(_path(out, "between", index))
        np.savez_compressed(file, **_arrays(Contacts(edges, stats)))
        staged.commit()
    return len(edges)


def _load_face(path: Path, axis: int) -> Face:
    if not path.exists():
        raise VolumeError(
            path, "no such file", "what a block keeps for its neighbours until the run is whole",
            "start anew in another --out",
        )  # fmt: skip
    with np.load(path) as data:
        rows = data[f"offsets{axis}"].tolist()
        return Face(
            tuple((int(x), int(y), int(z)) for x, y, z in rows), data[f"low{axis}"],
            data[f"high{axis}"], data[f"affinities{axis}"],
        )  # fmt: skip


def _arrays(contacts: Contacts) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"edges": contacts.edges}
    for reach, (pairs, stats) in enumerate(contacts.stats):
        arrays |= {f"pairs{reach}": pairs, f"stats{reach}": stats}
    return arrays


def _path(out: Path, kind: str, index: Triple) -> Path:
    return out / FOLDER / "parts" / f"{index[0]}-{index[1]}-{index[2]}.{kind}.npz"


def load_votes(out: Path, *names: str) -> Iterator[list[NDArray[Any]]]:
    """Some of `voted`, `votes` and `background` of every block, one block after another."""
    for path in _parts(out, "part"):
        with np.load(path) as data:
            yield [data[name] for name in names]


@dataclass(frozen=True)
class PartContacts:
    """The contacts inside of every block, then those between blocks, one block in hand at a time.

    Args:
        out: the output's folder.
        names: ids of the fragments that have voxels of their own, ascending; contacts go by
            their places among these, from 1 on, and those of other fragments are left out.
    """

    out: Path
    names: Ids

    def __iter__(self) -> Iterator[BlockContacts]:
        """From the first block on, each time anew."""
        for path in (*_parts(self.out, "part"), *_parts(self.out, "between")):
            with np.load(path) as data:
                edges, keep = self._numbers(data["edges"])
                stats = []
                for reach in range(len(REACHES)):
                    pairs, kept = self._numbers(data[f"pairs{reach}"])
                    stats.append((pairs[kept], data[f"stats{reach}"][kept]))
            yield BlockContacts(edges[keep], tuple(stats))

    def _numbers(self, pairs: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        at = np.searchsorted(self.names, pairs).clip(max=len(self.names) - 1)
        return (at + 1).astype(np.uint64), (self.names[at] == pairs).all(1)


def _parts(out: Path, kind: str) -> list[Path]:
    return sorted((out / FOLDER / "parts").glob(f"*.{kind}.npz"))


def remove_faces(out: Path) -> None:
    """Remove what only the contacts of blocks with their neighbours needed."""
    for path in (out / FOLDER / "parts").glob("*.faces.npz"):
        path.unlink(missing_ok=True)
