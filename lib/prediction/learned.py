"""What a study learned, on disk: what is used, whose weights it sits on, and how it came about.

    <study>/labels/heads.pt          the newest heads and their history
    <study>/labels/heads.pt.sha256   its digest

Written whole or not at all, like weights. The file also says when nothing is used, and why: a
refusal is an answer as well.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lib.networks.digests import digest_path, place_weights, read_checked
from lib.networks.study_heads import StudyHeads, with_study_heads
from lib.prediction.joining import PLAIN, JoinModel
from lib.prediction.predictor import Predictor

FORMAT = 3
READABLE = (2, 3)
"""Format 2: heads that see the features alone."""
NAME = "heads.pt"
MOST_HISTORY = 200


@dataclass(frozen=True)
class Joining:
    """How a study's fragments join.

    Args:
        offset: added to the contacts' log odds.
        plain: the mean affinity decides, not the weights' join model.
    """

    offset: float = 0.0
    plain: bool = False

    def on(self, model: JoinModel) -> JoinModel:
        """The weights' model, changed so."""
        base = PLAIN if self.plain else model
        return replace(base, offset=base.offset + self.offset)


@dataclass(frozen=True)
class Learned:
    """What one refit learned.

    Args:
        sentence: for people.
        used: whether the heads are in use.
        parent: SHA-256 of the weights the heads sit on.
        labels: what identifies the labels that were learned.
        figures: of each class: name, before, after, sure, voxels, used, one_sided.
        items: how many items had labels.
        voxels: how many known voxels they have.
        seconds: that it took.
        time: UTC, ISO 8601.
    """

    sentence: str
    used: bool
    parent: str
    labels: str
    figures: list[dict[str, Any]] = field(default_factory=list)
    items: int = 0
    voxels: int = 0
    seconds: float = 0.0
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Stored:
    """The content of a file.

    Args:
        learned: of the newest refit.
        heads: in use; None where nothing is.
        history: of the refits before, oldest first.
        joining: how fragments join; None: as the weights say.
        grouping: heads that find fragments; None: the published network's alone.
    """

    learned: Learned
    heads: StudyHeads | None
    history: tuple[Learned, ...] = ()
    joining: Joining | None = None
    grouping: StudyHeads | None = None

    @property
    def fragments(self) -> str:
        """What identifies the heads that find fragments; "" for the published ones."""
        return "" if self.grouping is None else _digest(self.grouping)

    @property
    def identity(self) -> str:
        """What identifies all that a prediction depends on, whenever it was learned."""
        heads = "" if self.heads is None else _digest(self.heads)
        told = f"{heads} {self.fragments} {self.joining}".encode()
        return hashlib.blake2b(told, digest_size=8).hexdigest()

    def sits_on(self, digest: str) -> bool:
        """Whether it is in use with the weights of a digest."""
        return self.learned.used and self.learned.parent == digest

    def on(self, predictor: Predictor) -> Predictor:
        """A predictor of the published weights, with what was learned on top."""
        net = predictor.net
        device = next(net.parameters()).device
        heads, grouping = (
            None if kept is None else copy.deepcopy(kept).to(device)
            for kept in (self.heads, self.grouping)
        )
        joining = predictor.joining
        return replace(
            predictor,
            net=with_study_heads(net, heads),
            grouping=with_study_heads(net, grouping),
            joining=joining if self.joining is None else self.joining.on(joining),
        )


def heads_path(root: Path) -> Path:
    """Where a study's heads lie."""
    return root / "labels" / NAME


def save_heads(root: Path, stored: Stored) -> None:
    """Write a study's heads atomically, with their digest."""
    write_heads(heads_path(root), stored)


def write_heads(path: Path, stored: Stored) -> None:
    """Write what was learned to any file, atomically, with its digest."""
    history = [entry.to_dict() for entry in stored.history[-MOST_HISTORY:]]
    data: dict[str, Any] = {
        "format": FORMAT,
        "learned": stored.learned.to_dict(),
        "history": history,
        "heads": _plain(stored.heads),
        "grouping": _plain(stored.grouping),
        "joining": None if stored.joining is None else asdict(stored.joining),
    }
    written = io.BytesIO()
    torch.save(data, written)
    place_weights(path, written.getvalue())


def load_heads(root: Path) -> Stored | None:
    """A study's heads; None where there are none.

    Raises:
        ValueError: a damaged file; names it and the remedy.
    """
    path = heads_path(root)
    if not path.exists():
        return None
    try:
        return read_heads(path)
    except FileNotFoundError:
        return None  # reset meanwhile
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise ValueError(
            f"study heads {path}: cannot be used ({type(error).__name__}: {error}); the published "
            f"weights are used alone; remove it with: python main.py adapt --studies {root} --reset"
        ) from error


def read_heads(path: Path) -> Stored:
    """The content of a file of `write_heads`, as torch and the file system raise."""
    content = read_checked(path)
    data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if data["format"] not in READABLE:
        raise ValueError(f"format {data['format']}, expected one of {READABLE}")
    history = tuple(Learned(**entry) for entry in data["history"])
    joining = None if data["joining"] is None else Joining(**data["joining"])
    heads, grouping = (_heads_of(data[name]) for name in ("heads", "grouping"))
    return Stored(Learned(**data["learned"]), heads, history, joining, grouping)


def reset_heads(root: Path) -> bool:
    """Remove a study's heads and their history; the published weights are used alone.

    Returns:
        Whether there were any.
    """
    path = heads_path(root)
    existed = path.exists()
    path.unlink(missing_ok=True)
    digest_path(path).unlink(missing_ok=True)
    return existed


def _digest(heads: StudyHeads) -> str:
    state = heads.state_dict()
    content = b"".join(state[name].cpu().numpy().tobytes() for name in sorted(state))
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _plain(heads: StudyHeads | None) -> dict[str, Any] | None:
    if heads is None:
        return None
    kept = {"outputs": dict(heads.outputs), "beside": heads.beside}
    return {**kept, "state": dict(heads.state_dict())}


def _heads_of(data: Mapping[str, Any] | None) -> StudyHeads | None:
    if data is None:
        return None
    state = data["state"]
    width, channels = state["inner.weight"].shape
    beside = data.get("beside", 0)
    heads = StudyHeads(channels - beside, data["outputs"], width, beside)
    heads.load_state_dict(state)
    return heads.requires_grad_(False).eval()
