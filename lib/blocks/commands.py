"""`predict` of volumes larger than memory, and `status`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from lib.blocks.clusters import cluster_at, local_workers, slurm_workers
from lib.blocks.engine import Engine, OneProcess
from lib.blocks.items import plan_items
from lib.blocks.ledger import Entry, Ledger, holder
from lib.blocks.plan import BlockPlan, read_plan
from lib.blocks.planning import make_plan
from lib.blocks.run import Outcome, begin, check_memory, check_space, drive
from lib.blocks.tasks import stages
from lib.configs.options import settings_from
from lib.configs.settings import Settings
from lib.prediction import commands
from lib.prediction.options import learned_from
from lib.volumes.boxes import show_box
from lib.volumes.errors import VolumeError

LISTED = 10
"""Failed blocks that are told one by one."""


def add_predict_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `predict` on the command line's sub-parsers."""
    parser = commands.add_predict_parser(subparsers, ("both",))
    group = parser.add_argument_group(
        "volumes larger than memory",
        "--image SRC --out NAME.zarr works block by block and writes OME-Zarr 0.5; the same "
        "command again goes on where it stopped. SRC may be s3://, gs:// or http(s)://.",
    )
    group.add_argument(
        "--box", metavar="X0:X1,Y0:Y1,Z0:Z1", help="part of the source, in its own voxels"
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=int, metavar="N", help="processes of this machine (needs dask)"
    )
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a dask cluster, tcp://HOST:8786")
    where.add_argument(
        "--slurm", type=Path, metavar="FILE", help="YAML for dask_jobqueue.SLURMCluster, and jobs"
    )
    return parser


def run_predict(args: argparse.Namespace) -> int:
    """Predict as the command line says, block by block where the output ends in .zarr.

    Returns:
        0, or 1 when some blocks failed.

    Raises:
        ValueError: options that do not go together, or files that cannot be read.
    """
    if args.image is not None and args.out is not None and args.out.suffix == ".zarr":
        return predict_blocks(args, settings_from(args))
    if args.studies is not None and (args.workers or args.scheduler or args.slurm):
        return predict_items(args, settings_from(args))
    if args.task == "both":
        raise ValueError("--task both: expected --image and an --out that ends in .zarr")
    return commands.run_predict(args)


def predict_blocks(args: argparse.Namespace, settings: Settings) -> int:
    """Predict a volume block by block, as the command line says.

    Returns:
        0 when every block is done, 1 when some failed.

    Raises:
        ValueError: what cannot be, in words.
    """
    learned = learned_from(args, settings)
    plan, hierarchy, told = make_plan(args, settings, learned)
    check_space(plan, args.out)
    plan = begin(args.out, plan, hierarchy, learned)
    if not args.quiet:
        print(told, file=sys.stderr)
    with engine_of(args, [plan]) as engine:
        outcome = drive(args.out, engine, Bars(quiet=args.quiet))
    print(summary(args.out, outcome))
    return 1 if outcome.failed else 0


def predict_items(args: argparse.Namespace, settings: Settings) -> int:
    """Predict a study's items by workers, block by block; then their labels are written.

    Returns:
        0 when every item is whole, 1 when blocks failed or items were left out.

    Raises:
        ValueError: what cannot be, in words.
    """
    runs, left_out = plan_items(args, settings)
    failed = False
    with engine_of(args, [run.plan for run in runs]) as engine:
        for run in runs:
            outcome = drive(run.out, engine, Bars(quiet=args.quiet))
            failed = failed or bool(outcome.failed)
            print(summary(run.out, outcome) if outcome.failed else run.write())
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if not failed:
        for run in runs:
            run.remove()
    return 1 if failed else 0


def summary(out: Path, outcome: Outcome) -> str:
    """What a run came to, in a few lines."""
    lines = [f"{out}: {outcome.made} blocks done now, {outcome.kept} before"]
    if outcome.failed:
        lines.append(
            f"{len(outcome.failed)} blocks of stage {outcome.failed[0].stage!r} failed; the same "
            "command tries them again"
        )
        lines += [f"  {e.index}: {e.error}" for e in outcome.failed[:LISTED]]
        if len(outcome.failed) > LISTED:
            lines.append(f"  and {len(outcome.failed) - LISTED} more in `main.py status {out}`")
    return "\n".join(lines)


def add_status_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `status` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status",
        help="how far a blockwise run is",
        description="Blocks done and failed of a .zarr that `predict` writes, its rate and the "
        "time that remains; works while it runs and after it died.",
    )
    parser.add_argument("out", type=Path, metavar="OUT.zarr")
    return parser


def run_status(args: argparse.Namespace) -> int:
    """Tell how far a run is; exit status 0 when whole, 1 when not."""
    plan = read_plan(args.out)
    if plan is None:
        raise VolumeError(args.out, "no blockwise run", "an --out of `main.py predict`")
    ledger, whole = Ledger(args.out), True
    print(f"{args.out}: {plan.task} of {plan.source}, box {show_box(plan.box)}")
    for stage in stages(plan, args.out):
        done, failed = ledger.done(stage.name), ledger.failed(stage.name)
        whole = whole and len(done) == len(stage.blocks)
        line = f"  {stage.name}: {len(done)} of {len(stage.blocks)} blocks"
        if failed:
            line += f", {len(failed)} failed"
        print(line + remaining(ledger, stage.name, len(stage.blocks)))
        for entry in failed:
            print(f"    {entry.index}: {entry.error}")
    at_work = holder(args.out)
    state = "whole" if whole else f"at work: {at_work}" if at_work else "stopped; not whole"
    print(f"  {state}")
    return 0 if whole else 1


def remaining(ledger: Ledger, stage: str, total: int, now: float | None = None) -> str:
    """Rate and time that remains, by the blocks of the last hour; "" where nothing tells."""
    now = time.time() if now is None else now
    times = sorted(e.at for e in ledger.entries[stage].values() if not e.error)
    recent = [t for t in times if now - t < 3600.0]
    left = total - len(times)
    if not left or len(recent) < 2 or recent[-1] <= recent[0]:
        return ""
    rate = (len(recent) - 1) / (recent[-1] - recent[0])
    minutes = left / rate / 60
    told = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
    return f", {60 * rate:.2f} a minute, about {told} to go"


class Bars:
    """A progress bar for each stage."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        self.stage = ""

    def __call__(self, stage: str, done: int, total: int, entry: Entry | None) -> None:
        if stage != self.stage:
            if self.bar is not None:
                self.bar.close()
            self.stage = stage
            self.bar = tqdm(
                total=total, initial=done, desc=stage, unit="block", disable=self.quiet or None
            )
        self.bar.update(done - self.bar.n)
        if entry is not None and entry.error:
            tqdm.write(f"block {entry.index} failed: {entry.error}", file=sys.stderr)


@contextmanager
def engine_of(args: argparse.Namespace, plans: Sequence[BlockPlan]) -> Iterator[Engine]:
    """Where the command line wants blocks worked on; memory is checked for the largest plan."""
    if args.scheduler:
        with cluster_at(args.scheduler) as engine:
            yield engine
    elif args.slurm:
        with slurm_workers(args.slurm) as engine:
            yield engine
    elif args.workers is not None:
        if args.workers < 1:
            raise ValueError(f"--workers {args.workers}: expected 1 or more")
        largest = max(plans, key=lambda plan: plan.worker_bytes())
        limit = check_memory(largest, args.workers, psutil.virtual_memory().available)
        with local_workers(args.workers, limit) as engine:
            yield engine
    else:
        yield OneProcess()
