"""Time and peak memory of a piece of work, on the CPU or a GPU."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Cost:
    """What a piece of work takes.

    Args:
        wall: seconds, the best of some runs.
        busy: seconds that processors worked for it, the best of some runs, over all threads:
            says more than `wall` on a machine that does other things too. On a GPU the wall.
        mebibytes: peak memory above the start; None where it cannot be measured.
    """

    wall: float
    busy: float
    mebibytes: float | None = None


def measure(work: Callable[[], object], device: torch.device, repeat: int) -> Cost:
    """Run once to warm up and for memory, then `repeat` times for time."""
    memory = _peak(work, device)
    runs = [timed(work, device) for _ in range(repeat)]
    return Cost(min(r.wall for r in runs), min(r.busy for r in runs), memory)


def timed(work: Callable[[], object], device: torch.device) -> Cost:
    """Run once."""
    _wait(device)
    wall, busy = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    return Cost(wall, wall if device.type == "cuda" else busy)


def machine(device: torch.device) -> str:
    """Processor, threads and versions, for the head of a table."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        cpu = names[0] if names else cpu
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{cpu}, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(work: Callable[[], object], device: torch.device) -> float | None:
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before) / 2**20
    if sys.platform != "linux":
        return None
    # Freed blocks go back to the system at once, so that resident memory is memory in use.
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start = _status("VmRSS")
    work()
    peak = _status("VmHWM") - start
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # glibc's own largest values
    libc.mallopt(_M_TRIM_THRESHOLD, 1 << 26)
    return peak


def _status(key: str) -> float:
    """A field of this process's memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(key)).split()[1]) / 1024
