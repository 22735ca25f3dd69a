"""The lock: what a fresh machine installs, and what it does not."""

import hashlib
import re
import zipfile
from pathlib import Path

import pytest

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


def test_the_lock_names_no_registry():
    assert not [line for line in LOCK if "://" in line or line.startswith("-")]


def test_the_shipped_weights_are_what_their_digest_says():
    shipped = ROOT / "model" / "neuropil.pt"
    assert recorded_digest(shipped) == hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert shipped.stat().st_size <= 25 * 2**20
