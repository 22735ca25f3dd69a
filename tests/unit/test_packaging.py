"""The lock: what a fresh machine installs, and what it does not."""

import hashlib
import re
import subprocess
import zipfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from lib.networks.digests import recorded_digest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "locked.txt").read_text().splitlines()
BY_HAND = (ROOT / "requirements.txt").read_text().splitlines()
PINS = dict(re.findall(r"^([\w.-]+)==([\w.+!]+)", "\n".join(LOCK), re.MULTILINE))
ABSENT = {
    line.partition("#")[0].strip().partition("==")[0]: line
    for line in (ROOT / "requirements" / "absent.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def _names(file: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [re.split(r"[=<>~\[ ]", line)[0].lower() for line in lines if line]


def test_every_direct_dependency_is_locked():
    assert set(_names("requirements/direct.in")) <= set(PINS)


def test_torch_fits_the_machine():
    """No "+cpu" or CUDA package in the lock: the index decides which build there is."""
    assert re.fullmatch(r"[\d.]+", PINS["torch"])
    assert not [n for n in PINS if re.match(r"nvidia|cuda|triton", n)]


def test_a_cuda_build_of_torch_gets_its_packages():
    """The lock is installed without resolving, and names none of them."""
    code = (ROOT / "requirements" / "torch_needs.py").read_text()
    module: dict[str, Any] = {"__name__": "torch_needs"}
    exec(compile(code, "torch_needs.py", "exec"), module)
    declared = [
        "filelock",
        'cuda-toolkit[cublas,cudart]==13.0.3; platform_system == "Linux"',
        'nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"',
        'triton==3.7.1; platform_system == "Linux"',
        'nvidia-extra==1; extra == "more"',
        'optree>=0.13.0; extra == "optree"',
    ]
    assert module["cuda_requirements"](declared) == declared[1:4]
    assert module["cuda_requirements"](["filelock", "sympy>=1.13.3"]) == []


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_what_is_not_used_is_an_empty_placeholder(name: str):
    assert name not in PINS
    lines = [
        line
        for line in BY_HAND
        if line.startswith(f"./requirements/absent/{name.replace('-', '_')}-")
    ]
    assert len(lines) == 1
    with zipfile.ZipFile(ROOT / lines[0]) as wheel:
        assert all(".dist-info/" in member for member in wheel.namelist()), "no code in it"
        metadata = next(m for m in wheel.namelist() if m.endswith("METADATA"))
        assert f"Name: {name}\n" in wheel.read(metadata).decode()


def _declared(name: str) -> list[Requirement]:
    """What the installed packages ask of one that is left out, extras aside."""
    asked = [Requirement(r) for d in distributions() for r in d.requires or []]
    return [
        r
        for r in asked
        if r.name.lower().replace("_", "-") == name
        and (r.marker is None or r.marker.evaluate({"extra": ""}))
    ]


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_a_placeholder_is_the_lowest_version_that_is_asked_for(name: str):
    """So that any constraint under which the real package could be installed admits it."""
    version = Version(ABSENT[name].partition("#")[0].strip().partition("==")[2])
    declared = _declared(name)
    lowest = {
        Version(s.version)
        for r in declared
        for s in r.specifier
        if s.operator in (">=", "==", "~=")
    }
    assert all(r.specifier.contains(f"{version}+absent") for r in declared)
    if lowest:
        assert version == max(lowest)
    elif name != "mlflow":  # an extra of monai alone names a version of it
        assert version <= Version("0.1")


def test_a_constraint_on_what_is_left_out_admits_the_placeholders():
    machine = [Requirement(c) for c in ("torchvision<=0.29.1", "mlflow<4", "sam2<2")]
    for constraint in machine:
        line = next(w for w in BY_HAND if f"/{constraint.name}-" in w)
        version = line.split("-")[1]
        assert constraint.specifier.contains(version)


def test_help_names_every_target():
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = set(re.findall(r"\bmake ([\w-]+)", told.stdout))
    assert named == set(phony[1].split()) - {"help"}


def interpreter(folder: Path, version: str) -> Path:
    """A program that says it is a Python of a version, and would be asked for nothing else."""
    path = folder / f"python{version}"
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo {version} || echo "asked for $*"\n')
    path.chmod(0o755)
    return path


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_a_python_of_the_lock_will_do(tmp_path, version):
    told = run("sh", "requirements/check_python.sh", interpreter(tmp_path, version))
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10", "3.13", "3.14"])
def test_a_python_that_the_lock_does_not_fit_is_refused_in_one_line(tmp_path, version):
    """Not by a wall of pip's, and before an environment is made that a next try would take."""
    python = interpreter(tmp_path, version)
    told = run("make", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert told.returncode != 0 and not (tmp_path / "venv").exists()
    (line,) = [t for t in told.stderr.splitlines() if not t.startswith("make")]
    assert f"is Python {version}: the lock needs 3.11 or 3.12" in line
    assert "asked for" not in told.stdout
    there = tmp_path / "there" / "bin"
    there.mkdir(parents=True)
    python.rename(there / "python")
    told = run("make", "install", f"VENV={there.parent}")
    assert told.returncode != 0 and "the lock needs 3.11 or 3.12" in told.stderr
    assert "asked for" not in told.stdout


def test_a_python_that_is_not_there_is_named(tmp_path):
    told = run("make", "install", "PYTHON=python9.9", f"VENV={tmp_path / 'venv'}")
    assert told.returncode != 0 and "python9.9 does not run here" in told.stderr


def test_the_lock_names_no_registry():
    assert not [line for line in LOCK if "://" in line or line.startswith("-")]


def test_the_shipped_weights_are_what_their_digest_says():
    shipped = ROOT / "model" / "neuropil.pt"
    assert recorded_digest(shipped) == hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert shipped.stat().st_size <= 25 * 2**20
