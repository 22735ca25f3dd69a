"""The driver of a blockwise run: finds or makes the output, hands out blocks, keeps the ledger."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.blocks.cells import remove_votes
from lib.blocks.engine import Engine, OneProcess, Work
from lib.blocks.ledger import Entry, Ledger, only_driver
from lib.blocks.parts import remove_faces
from lib.blocks.plan import FOLDER, BlockPlan, learned_path, plan_path, read_plan
from lib.blocks.tasks import Stage, run_block, stages
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.classes import FINE_VALUE, GROUP_VALUE
from lib.prediction.learned import Stored, write_heads
from lib.volumes.atomic import make_folder
from lib.volumes.errors import DISK_FULL, VolumeError
from lib.volumes.writers.ome_zarr import make_group

Progress = Callable[[str, int, int, Entry | None], None]
"""Told (stage, blocks done, blocks in all, the block just done)."""
FULL = ("disk filled up", *(os.strerror(code) for code in DISK_FULL))


@dataclass
class Outcome:
    """What a run came to.

    Args:
        made: blocks done now.
        kept: blocks done before.
        failed: blocks that could not be done; stages after theirs were not begun.
    """

    made: int = 0
    kept: int = 0
    failed: list[Entry] = field(default_factory=list)


def begin(
    out: Path, plan: BlockPlan, hierarchy: LabelHierarchy, learned: Stored | None = None
) -> BlockPlan:
    """Make the output, or find it as the same run left it.

    Args:
        out: the output's folder.
        plan: of the run.
        hierarchy: of the network.
        learned: what the plan uses of a study; it is kept beside the plan.

    Returns:
        The plan that lies there: of an earlier start, where there is one.

    Raises:
        VolumeError: the folder holds something else, or a run that differs; says in what.
    """
    found = read_plan(out)
    if found is not None:
        if told := found.differences(plan):
            raise VolumeError(
                out, f"a run of other {'; '.join(told)}", "the same command to go on",
                "choose another --out, or remove the folder",
            )  # fmt: skip
        return found
    ours = (out / FOLDER).is_dir()  # a run that was killed before its first block
    if out.exists() and not ours and any(out.iterdir()):
        raise VolumeError(out, "exists and is no blockwise run", remedy="choose another --out")
    make_folder(out / FOLDER)
    make_group(out, {"neuropil": {"layers": list(plan.layers)}})
    for layer in plan.written:
        plan.image(out, layer).create(_about(layer, hierarchy))
    if learned is not None:
        write_heads(learned_path(out), learned)
    plan.write(out)
    return plan


def drive(
    out: Path, engine: Engine, progress: Progress | None = None, work: Work = run_block
) -> Outcome:
    """Do all blocks that are not done; the output has its plan.

    Args:
        out: the output's folder.
        engine: where blocks are worked on.
        progress: told of every block.
        work: does one block.

    Raises:
        VolumeError: another driver is at work, or the disk is full.
    """
    with only_driver(out):
        plan = read_plan(out)
        if plan is None:
            raise VolumeError(plan_path(out), "no such file", "the plan of a blockwise run")
        ledger, outcome = Ledger(out), Outcome()
        for stage in stages(plan, out):
            _drive_stage(out, stage, ledger, outcome, engine, progress, work)
            if outcome.failed:
                return outcome  # what follows needs every block of this stage
        remove_faces(out)
        remove_votes(out)
        return outcome


def _drive_stage(
    out: Path,
    stage: Stage,
    ledger: Ledger,
    outcome: Outcome,
    engine: Engine,
    progress: Progress | None,
    work: Work,
) -> None:
    done = ledger.done(stage.name)
    todo = [index for index in stage.blocks if index not in done]
    count, total = len(stage.blocks) - len(todo), len(stage.blocks)
    outcome.kept += count
    if progress is not None:
        progress(stage.name, count, total, None)
    where = OneProcess() if stage.whole else engine
    for entry in where.run(work, out, stage.name, todo):
        if any(text in entry.error for text in FULL):
            raise VolumeError(
                out, f"the disk filled up ({entry.error})",
                remedy="free some space and give the same command: done blocks are kept",
            )  # fmt: skip
        ledger.add(entry)
        if entry.error:
            outcome.failed.append(entry)
        else:
            outcome.made += 1
            count += 1
        if progress is not None:
            progress(stage.name, count, total, entry)


def check_memory(plan: BlockPlan, workers: int, available: int) -> int:
    """The memory limit of a worker, in bytes.

    Args:
        plan: of the run.
        workers: on one machine.
        available: bytes of this machine that are free.

    Raises:
        ValueError: the workers would not fit.
    """
    need = plan.worker_bytes()
    if workers * need > available:
        fit = max(0, available // need)
        raise ValueError(
            f"--workers {workers}: each needs {need / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB are free; expected at most {fit}, or smaller blocks "
            "(--set blocks.core=[240,240,72] blocks.tile_bytes=67108864)"
        )
    return 2 * need  # a worker above its limit is killed: the limit is for runaways


def check_space(plan: BlockPlan, out: Path) -> None:
    """Refuse a run whose output cannot fit even well packed.

    Raises:
        VolumeError: how much is free, and how much the least is.
    """
    folder = next(p for p in (out, *out.absolute().parents) if p.exists())
    free, least = shutil.disk_usage(folder).free, plan.least_disk_bytes()
    if free < least:
        raise VolumeError(
            out, f"{free / 2**20:.0f} MiB free", f"{least / 2**20:.0f} MiB at the least",
            "free some space, choose another --out, or a smaller --box",
        )  # fmt: skip


def _about(layer: str, hierarchy: LabelHierarchy) -> dict[str, Any]:
    """`image-label` metadata: colours and names of classes and groups."""
    if layer != "classes":
        return {"image-label": {"version": "0.5"}}
    named = [(i + FINE_VALUE, c.name, c.color) for i, c in enumerate(hierarchy.classes)]
    for k, (name, members) in enumerate(hierarchy.groups):
        mean = np.mean([hierarchy.classes[i].color for i in members], axis=0)
        named.append((k + GROUP_VALUE, f"{name} (group)", tuple(mean.round())))
    return {
        "image-label": {
            "version": "0.5",
            "colors": [{"label-value": v, "rgba": [*map(int, rgb), 255]} for v, _, rgb in named],
            "properties": [{"label-value": v, "class": name} for v, name, _ in named],
        }
    }
