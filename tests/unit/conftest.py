"""What unit tests of several modules start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from submission_cases import study_of_one

from lib.volumes.study import Study

# A deadline would be an assertion of time: it fails where the machine is busy.
settings.register_profile("neuropil", deadline=None)
settings.load_profile("neuropil")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study with the unlabelled item "one"; modules of other rooms have one of their own."""
    return study_of_one(tmp_path / "study")
