"""Print what the installed torch needs besides the lock: the CUDA packages of a CUDA build.

The lock names no CUDA package, so that it fits both builds (requirements/lock.py), and `make`
installs it without resolving. A CPU build declares none, and nothing is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import requires

CUDA = re.compile(r"(nvidia|cuda|triton)[-\w]*", re.IGNORECASE)


def cuda_requirements(declared: Iterable[str]) -> list[str]:
    """Those of a distribution's requirements that are CUDA packages, extras' own left out.

    Args:
        declared: as in the metadata, `name[extra]==version; marker`.

    Returns:
        The same lines; pip judges the other markers, which say the system.
    """
    return [r for r in declared if CUDA.match(r) and not re.search(r"\bextra\s*==", r)]


if __name__ == "__main__":
    print("\n".join(cuda_requirements(requires("torch") or [])))
