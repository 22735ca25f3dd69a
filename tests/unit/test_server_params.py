"""What requests carry beside ids: text that is JSON, names, tags, devices, numbers; uploads."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi import BackgroundTasks, HTTPException, UploadFile
from hypothesis import given
from hypothesis import strategies as st
from submission_cases import upload
from volume_files import volume

from lib.server.params import (
    GPUS,
    MOST_DEPTH,
    MOST_JOB_TEXT,
    MOST_NUMBER,
    RESERVED_TAGS,
    check_batch,
    check_json,
    check_name,
    check_request_params,
    check_tag,
    job_options,
    parse_params,
)
from lib.server.uploads import (
    FREE_BYTES,
    MOST_UNPACKED,
    check_image,
    check_unpacked,
    remove_staged,
    stage_upload,
)
from lib.volumes.errors import VolumeError
from lib.volumes.source import Source


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(HTTPException) as caught:
        call(*arguments)
    assert caught.value.status_code == 400
    return str(caught.value.detail)


def test_params_are_what_their_text_says() -> None:
    assert parse_params(None) == parse_params("") == parse_params("{}") == {}
    assert parse_params('{"a": [1, "x", null, true, 1.5]}') == {"a": [1, "x", None, True, 1.5]}


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "null", "true"])
def test_params_that_are_no_object_are_told_by_their_type(text: str) -> None:
    kind = type(json.loads(text)).__name__
    assert refused(parse_params, text) == f"params: expected a JSON object, found {kind}"


def test_nesting_is_let_through_as_deep_as_anybody_writes() -> None:
    check_json(nested(MOST_DEPTH - 1))
    assert "nested deeper than" in refused(check_json, nested(MOST_DEPTH))
    assert "nested deeper than" in refused(check_json, {"a": nested(MOST_DEPTH)})
    assert "not valid JSON" in refused(parse_params, '{"a":' + "[" * 100_000)


def test_numbers_beyond_all_use_are_told_by_their_length() -> None:
    for value in (MOST_NUMBER, -MOST_NUMBER, 1e300, True):
        check_json({"a": value})
    assert refused(check_json, {"a": [10**30]}) == "params: a number of 31 digits"
    assert refused(check_json, -MOST_NUMBER - 1).startswith("params: a number of")


def test_half_a_character_is_refused_in_keys_and_values() -> None:
    for value in ({"a": "x\ud800"}, {"\udfff": 1}, ["\ud83d"]):
        assert "half a character" in refused(check_json, value)
    check_json({"ä": "😀"})


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=6))  # fmt: skip
def test_whatever_people_write_passes(value: Any) -> None:
    parse_params(json.dumps({"a": value}))


@pytest.mark.parametrize("name", ["a", "a.b", "_x-1", "A" * 128, "0"])
def test_names_that_may_become_paths(name: str) -> None:
    check_name(name, "tag")


@pytest.mark.parametrize(
    "name", ["", ".a", "-a", "a/b", "a\\b", "a..b", "a b", "é", "A" * 129, None, 3, "a\n"]
)
def test_names_that_may_not(name: Any) -> None:
    assert refused(check_name, name, "tag").startswith("tag: expected letters, digits")


@pytest.mark.parametrize("tag", [*sorted(RESERVED_TAGS), "heat-uncertainty", "heat-"])
def test_tags_that_runs_and_submissions_write(tag: str) -> None:
    assert "choose another tag" in refused(check_tag, tag, "params.label_tag")
    assert "choose another tag" in refused(check_request_params, {"label_tag": tag}, set())
    check_tag(f"my-{tag}", "tag")


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:15", "mps", ["cpu", "x"], None])
def test_devices_there_can_be(device: Any) -> None:
    check_request_params({"device": device}, set())


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:100", "cpu ", "", 0, [], [1], {"a": 1}])
def test_devices_there_cannot_be(device: Any) -> None:
    told = refused(check_request_params, {"device": device}, set())
    assert "params.device: expected cpu, cuda or cuda:N" in told


def test_keys_of_the_server_are_named_all_at_once() -> None:
    told = refused(check_request_params, {"b": 1, "a": 2, "c": 3}, {"a", "b", "x"})
    assert told == "params: a, b may not be given here"
    assert "params.name" in refused(check_request_params, {"name": "../x"}, set())


def test_options_of_a_job_fit_into_an_argument() -> None:
    fits = {"a": "x" * (MOST_JOB_TEXT - 9)}
    assert job_options({"params": fits}) == fits and job_options({}) == {}
    assert len(json.dumps(fits)) == MOST_JOB_TEXT
    too_long = {"a": fits["a"] + "x"}
    assert f"more than {MOST_JOB_TEXT} characters" in refused(job_options, {"params": too_long})
    given_params = {"a": 1}
    assert job_options({"params": given_params}) is not given_params


@pytest.mark.parametrize("key", ["max_batch_size", "max_workers"])
def test_numbers_of_a_batch(key: str) -> None:
    for value in (0, 1, 1 << 20, None):
        check_batch({key: value})
    for value in (-1, (1 << 20) + 1, 1.0, True, "2", [1]):
        assert f"params.{key}: expected a whole number" in refused(check_batch, {key: value})


def test_gpus_of_a_batch() -> None:
    for value in ("all", "0", "0,1", "12,3", None):
        check_batch({"gpus": value})
    for value in ("", "0,", "0, 1", "a", 0, ["0"], "100"):
        assert "params.gpus" in refused(check_batch, {"gpus": value})
    assert GPUS.fullmatch("0,1,2")


# Uploads --------------------------------------------------------------------------------------


def sized(shape: tuple[int, int, int], dtype: Any = np.uint8) -> Source:
    return cast(Source, SimpleNamespace(shape=shape, dtype=np.dtype(dtype)))


def test_a_file_may_unpack_to_what_is_free_or_to_many_times_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 1000)
    side = round(FREE_BYTES ** (1 / 2))
    check_unpacked(sized((side, side, 1)), path)
    with pytest.raises(HTTPException) as told:
        check_unpacked(sized((side, side, 1), np.uint16), path)
    assert told.value.status_code == 413
    assert f"{side} x {side} x 1 voxels" in told.value.detail
    assert f"in a file of 1000 bytes: expected at most {MOST_UNPACKED} times" in told.value.detail
    with path.open("r+b") as file:
        file.truncate(FREE_BYTES * 2 // MOST_UNPACKED + 1)
    check_unpacked(sized((side, side, 1), np.uint16), path)


@pytest.mark.parametrize("shape", [(13, 17, 9), (40, 50, 1)])
@pytest.mark.parametrize("name", ["one.nii.gz", "one.nii"])
def test_an_image_is_read_to_its_end_before_it_is_taken(
    tmp_path: Path, shape: tuple[int, int, int], name: str
) -> None:
    good = upload(tmp_path, volume(shape), name)
    check_image(good)
    content = good.read_bytes()
    for lost in (200, len(content) // 2):
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes(content[:-lost])
        with pytest.raises(VolumeError):
            check_image(cut)


def test_an_upload_is_kept_until_its_answer_was_sent() -> None:
    tasks = BackgroundTasks()
    path = Path(stage_upload(UploadFile(io.BytesIO(b"content")), ".nii.gz", tasks))
    assert path.read_bytes() == b"content" and path.name.endswith(".nii.gz")
    (task,) = tasks.tasks
    assert task.func is remove_staged and task.args == (str(path),)
    remove_staged(str(path))
    remove_staged(str(path))  # somebody took it meanwhile
    assert not path.exists()
