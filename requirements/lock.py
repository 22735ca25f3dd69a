"""Compile locked.txt, dev.txt and cluster.txt: `make lock`, with uv on PATH or as argument.

Two things that uv does not do by itself: packages in absent.txt become empty placeholder
wheels, and torch keeps no local version ("+cpu") and no CUDA packages in the lock, so that an
index which offers a CPU build gives that one and any other gives the CUDA build with the
CUDA packages that it pins itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
CUDA = re.compile(r"^(nvidia|cuda|triton)[-\w]*==")
HEAD = "# Compiled by `make lock` from requirements/{source}; edit that file, not this one.\n"
BY_HAND = """\
# Written by `make lock`. For `pip install -r requirements.txt` by hand, which resolves. Where
# constraints of the machine are in the way: pip install --no-deps -r requirements/locked.txt"""


def absent_packages() -> dict[str, str]:
    """Name -> version of the packages that get a placeholder."""
    lines = (line.partition("#")[0].strip() for line in (HERE / "absent.txt").open())
    return dict(line.split("==", 1) for line in lines if line)


def write_placeholder(name: str, version: str) -> Path:
    """An installable wheel without code: a name and a version; the same bytes every time."""
    stem = f"{name.replace('-', '_')}-{version}+absent"
    path = HERE / "absent" / f"{stem}-py3-none-any.whl"
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+absent\n"
        "Summary: Placeholder: this app does not use the package of this name\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: neuropil\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{stem}.dist-info/{file},,\n" for file in [*metadata, "RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**metadata, "RECORD": record}.items():
            wheel.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{file}"), text)
    return path


def compile_lock(uv: str, source: str, absent: dict[str, str], *extra: str) -> list[str]:
    """The resolved `name==version` lines of one .in file."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = Path(folder) / "overrides.txt"
        overrides.write_text("".join(f'{n} ; python_version < "3"\n' for n in absent))
        command = [uv, "pip", "compile", "--quiet", "--python-version", "3.11", "--no-header"]
        command += ["--override", str(overrides), "--annotation-style", "line", *extra]
        command += [f"requirements/{source}"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not CUDA.match(line)]
    return [re.sub(r"^(torch==[\d.]+)\+\w+", r"\1", line) for line in lines]


def main() -> None:
    """Write both locks and the placeholders."""
    uv = sys.argv[1] if len(sys.argv) > 1 else "uv"
    absent = absent_packages()
    for old in (HERE / "absent").glob("*.whl"):
        old.unlink()
    wheels = [write_placeholder(*item).relative_to(ROOT) for item in absent.items()]
    lock = compile_lock(uv, "direct.in", absent)
    (HERE / "locked.txt").write_text(HEAD.format(source="direct.in") + "\n".join(lock) + "\n")
    by_hand = ["-r requirements/locked.txt", "", "# empty placeholders: see absent.txt"]
    by_hand += [f"./{wheel.as_posix()}" for wheel in wheels]
    (ROOT / "requirements.txt").write_text("\n".join([BY_HAND, *by_hand]) + "\n")
    pins = [line for line in lock if "==" in line and not line.startswith("#")]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pins))
        constraints.flush()
        for source in ("dev.in", "cluster.in"):
            more = compile_lock(uv, source, absent, "--constraint", constraints.name)
            more = [re.sub(r"(,? )?-c /\S+", "", line) for line in more]
            head = HEAD.format(source=source)
            (HERE / source).with_suffix(".txt").write_text(head + "\n".join(more) + "\n")


if __name__ == "__main__":
    main()
