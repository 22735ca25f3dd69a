"""What a request is answered where it cannot be done: status, sentence, remedy; and its region."""

from __future__ import annotations

import errno
import json
import math
import shutil
import tarfile
import zipfile
from typing import Any

import pytest
from fastapi import HTTPException
from hypothesis import given, settings
from hypothesis import strategies as st
from monailabel.interfaces.exception import (
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from lib.server.errors import as_answer, refuse
from lib.server.finite import finite
from lib.server.regions import is_coordinate, region
from lib.volumes.errors import DiskError, VolumeError

SHAPE = (10, 20, 5)


def answered(error: Exception) -> tuple[int, str]:
    answer = as_answer(error)
    assert answer is not None, error
    return answer.status_code, str(answer.detail)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (LabelNotFoundException("no label"), 404, "no label"),
        (MONAILabelException(MONAILabelError.SERVER_ERROR, "Model not Initialized"), 404, "not In"),
        (VolumeError("a.nii", "cut short", "4 bytes", "copy it again"), 400,
         "a.nii: cut short; expected 4 bytes; copy it again"),
        (DiskError("labels", "no place", full=True), 507, "labels: no place"),
        (DiskError("labels", "read only"), 403, "labels: read only"),
        (OSError(errno.ENOSPC, "No space left on device", "/s/x"), 507, "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/s/x"), 507, "nothing was changed"),
        (PermissionError(errno.EACCES, "Permission denied", "/s/labels"), 403,
         "labels cannot be written (Permission denied)"),
        (OSError(errno.EROFS, "Read-only file system"), 403, "the study cannot be written"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 400, "a name is too long"),
        (zipfile.BadZipFile("no zip"), 400, "archive: cannot be read: no zip"),
        (tarfile.ReadError("no tar"), 400, "archive: cannot be read: no tar"),
        (shutil.ReadError("neither"), 400, "archive: cannot be read: neither"),
        (TimeoutError(), 503, "the server is busy, try again"),
        (TimeoutError("device taken"), 503, "device taken"),
        (MemoryError("2 GiB"), 413, "more memory than the server has (2 GiB)"),
        (OverflowError("too large an int"), 400, "too large an int"),
        (UnicodeEncodeError("utf-8", "\udc80", 0, 1, "surrogates"), 400, "surrogates"),
    ],
)  # fmt: skip
def test_each_kind_of_fault_has_its_status_and_its_words(
    error: Exception, status: int, told: str
) -> None:
    found = answered(error)
    assert found[0] == status and told in found[1]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("/data/study/a.nii", "a.nii: cut short"),
        ("/data/v.h5:volumes/raw", "v.h5:volumes/raw: cut"),
    ],
)
def test_a_viewer_is_not_told_where_the_server_keeps_files(where: str, told: str) -> None:
    """The command line says it: there it tells which file to mend."""
    error = VolumeError(where, "cut short", remedy=f"see {where}")
    assert str(error).startswith(where)
    for found in (error, DiskError(where, "cut short", full=True)):
        words = answered(found)[1]
        assert words.startswith(told) and "/data" not in words


def test_words_that_are_no_json_are_a_fault_of_params() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert answered(caught.value)[0] == 400
    assert answered(caught.value)[1].startswith("params: not valid JSON")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), RuntimeError("x"), AssertionError()]
)
def test_faults_of_our_own_keep_their_traceback(error: Exception) -> None:
    assert as_answer(error) is None


def test_an_answer_stays_the_answer_it_is() -> None:
    error = refuse("no such page", 404)
    assert as_answer(error) is error
    assert refuse("params").status_code == 400


# Regions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, [], "", 0])
def test_no_region_is_the_whole_image(value: Any) -> None:
    assert region(value, SHAPE) is None


@pytest.mark.parametrize(
    ("value", "box"),
    [
        ([2, 4, 3, 9, 1, 2], ((2, 5), (3, 10), (1, 3))),
        ([4, 2, 9, 3, 2, 1], ((2, 5), (3, 10), (1, 3))),
        ([0, 0, 0, 0, 0, 0], ((0, 1), (0, 1), (0, 1))),
        ([-5, 50, -5, 50, -5, 50], ((0, 10), (0, 20), (0, 5))),
        ([1.4, 2.6, 0, 1, 0, 1], ((1, 4), (0, 2), (0, 2))),
        ([9, 9, 19, 19, 4, 4], ((9, 10), (19, 20), (4, 5))),
    ],
)
def test_both_ends_of_a_region_belong_to_it(value: list[float], box: Any) -> None:
    assert region(value, SHAPE) == box


@given(st.lists(st.integers(-30, 40), min_size=6, max_size=6))
def test_a_region_is_what_lies_between_its_ends_within_the_image(ends: list[int]) -> None:
    inside = []
    for axis, size in enumerate(SHAPE):
        low, high = sorted(ends[2 * axis : 2 * axis + 2])
        inside.append([v for v in range(size) if low <= v <= high])
    if all(inside):
        assert region(ends, SHAPE) == tuple((v[0], v[-1] + 1) for v in inside)
        return
    with pytest.raises(HTTPException, match="holds no voxel of an image"):
        region(ends, SHAPE)


@pytest.mark.parametrize(
    "value",
    [[1, 2, 3], "0,1,2", {"i": 1}, [0, 1, 0, 1, 0, None], [0, 1, 0, 1, 0, True],
     [0, 1, 0, 1, 0, math.nan], [0, 1, 0, 1, 0, math.inf], [0, 1, 0, 1, 0, 1e12],
     [[0], 1, 2, 3, 4, 5]],
)  # fmt: skip
def test_what_is_no_region_is_refused_with_what_is_expected(value: Any) -> None:
    with pytest.raises(HTTPException, match=r"expected \[i0, i1, j0, j1, k0, k1\], found") as told:
        region(value, SHAPE)
    assert told.value.status_code == 400


@pytest.mark.parametrize(
    ("value", "good"),
    [(0, True), (-3.5, True), (True, False), ("1", False), (None, False), (math.nan, False),
     (1e9, False), (-1e9, False), (999_999_999, True)],
)  # fmt: skip
def test_coordinates_are_finite_numbers_within_reason(value: Any, good: bool) -> None:
    assert is_coordinate(value) == good


# Numbers that JSON lacks -----------------------------------------------------------------------

KEYS = st.sampled_from("abc")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(VALUES)
def test_any_answer_can_be_sent_and_finite_ones_stay_as_they_are(value: Any) -> None:
    sent = json.dumps(finite(value), allow_nan=False)
    try:
        plain = json.dumps(value, allow_nan=False)
    except ValueError:
        assert "null" in sent
    else:
        assert sent == plain
