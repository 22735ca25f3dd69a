"""Arguments of the endpoints that are checked less often: sessions, logs, runs, labels, images."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from test_server_checks import CHECKS

from lib.server.batch import BatchInfer
from lib.server.checks import MOST_LINES, MOST_NAME


def status(endpoint: str, **call: Any) -> int:
    """The status with which a call is refused."""
    with pytest.raises(HTTPException) as caught:
        CHECKS[endpoint](call)
    return caught.value.status_code


def told(endpoint: str, **call: Any) -> str:
    with pytest.raises(HTTPException) as caught:
        CHECKS[endpoint](call)
    return str(caught.value.detail)


def uploads(*names: str | None) -> list[Any]:
    return [SimpleNamespace(filename=name, file=io.BytesIO(b"")) for name in names]


@pytest.mark.parametrize(
    "name", ["a/b.nii", "..\\a", ".hidden", "a\x00b", "a" * (MOST_NAME + 2), "é" * MOST_NAME]
)
def test_session_files_have_plain_names(name: str) -> None:
    message = told("api_create_session", files=uploads("good.nii", name))
    assert f"a name of at most {MOST_NAME} bytes without '/'" in message and len(message) < 200


def test_session_files_bring_their_voxels() -> None:
    assert ".nrrd with its voxels" in told("api_create_session", files=uploads("a.NHDR"))
    assert "upload the voxels" in told("api_create_session", files=uploads("a.region.json"))
    CHECKS["api_create_session"]({"files": uploads("a.nii.gz", None, "b c.nrrd")})


def test_no_file_of_a_session_is_unpacked_unless_that_is_asked_for() -> None:
    CHECKS["api_create_session"]({"files": uploads("a.zip"), "uncompress": False})
    with pytest.raises(ValueError, match="cannot be read"):
        CHECKS["api_create_session"]({"files": uploads("a.zip"), "uncompress": True})


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [("lines", 1, True), ("lines", 0, False), ("lines", MOST_LINES, True),
     ("lines", MOST_LINES + 1, False), ("refresh", 0, True), ("refresh", -1, False),
     ("lines", None, True)],
)  # fmt: skip
def test_logs_are_asked_for_by_a_number_of_lines(key: str, value: int | None, good: bool) -> None:
    if good:
        CHECKS["api_get_logs"]({key: value})
    else:
        assert f"{key}: expected" in told("api_get_logs", **{key: value})


def test_a_session_of_several_files_has_no_one_image(tmp_path: Any) -> None:
    checks = CHECKS["api_get_session"].__self__
    folder = SimpleNamespace(image=str(tmp_path))
    genuine, checks.app.session = checks.app.session, lambda _: folder
    try:
        message = told("api_get_session", session_id="0a" * 8, image=True)
        CHECKS["api_get_session"]({"session_id": "0a" * 8, "image": False})
    finally:
        checks.app.session = genuine
    assert "holds several files" in message


def test_inference_needs_something_to_look_at() -> None:
    assert "one of image, session_id or file" in told("api_run_inference", model="segmentation")
    CHECKS["api_run_inference"]({"model": "segmentation", "file": object()})
    CHECKS["api_run_inference"]({"model": "segmentation", "image": "em"})
    CHECKS["api_run_inference"]({"model": "segmentation", "session_id": "0a" * 8})
    assert status("api_run_inference", model="segmentation", session_id="ff" * 8) == 404
    assert status("api_run_inference", model="segmentation", session_id="../0a", image="em") == 404
    assert "there are: segmentation" in told("api_run_inference", model="other", image="em")


@pytest.mark.parametrize(
    ("endpoint", "call"),
    [
        ("api_sample", {"strategy": "best"}),
        ("api_run_method", {"method": "best"}),
        ("api_run_model", {"model": "best"}),
        ("api_run", {"model": "best"}),
        ("api_model_info", {"model": "best"}),
        ("api_download_model", {"model": "best"}),
        ("api_update_model", {"model": "best"}),
        ("api_delete_model", {"model": "best"}),
        ("api_remove_label", {"id": "none", "tag": "final"}),
        ("api_download_label", {"label": "none", "tag": "final"}),
        ("api_put_label_info", {"label": "none", "tag": "final"}),
        ("api_put_image_info", {"image": "none", "info": "{}"}),
    ],
)
def test_what_is_not_there_is_404(endpoint: str, call: dict[str, Any]) -> None:
    assert status(endpoint, **call) == 404


@pytest.mark.parametrize("key", ["image", "model", "session", "train_ds", "app_dir", "studies"])
def test_no_run_of_many_names_files_or_images(key: str) -> None:
    for call in ({"params": {key: "/x"}}, {"params": {"combined": {key: "/x"}}}):
        assert status("api_run", **call) == 400


def test_options_of_a_run_are_an_object() -> None:
    message = told("api_run", params={"combined": [1]})
    assert "params.combined: expected an object of options, found [1]" in message
    assert CHECKS["api_run"]({"params": {"combined": None, "random": {}}}) == []
    assert "max_epochs" in told("api_run", params={"combined": {"max_epohcs": 3}})


def test_new_images_have_names_that_can_be_ids() -> None:
    CHECKS["api_add_image"]({"image": None, "file": SimpleNamespace(filename="em 3.nii.gz")})
    CHECKS["api_add_image"]({"image": "mine", "file": SimpleNamespace(filename="..")})
    for given in ({"image": "../x"}, {"image": None}):
        file = SimpleNamespace(filename="../x.nii")
        message = told("api_add_image", **given, file=file)
        assert "cannot be an id" in message and "expected" in message


def test_labels_are_of_a_tag_that_is_a_word() -> None:
    CHECKS["api_save_label"]({"image": "em", "tag": "final"})
    CHECKS["api_save_label"]({"image": "em", "tag": None})
    CHECKS["api_save_label"]({"image": "em", "tag": "my_tag"})
    assert status("api_save_label", image="em", tag="../x") == 400
    assert status("api_remove_label", id="em", tag="a/b") == 400
    assert status("api_save_label", image="em", tag="my_tag", params="[1]") == 400
    assert status("api_put_label_info", label="em", tag="final", info="{") == 400


class Store:
    """Two images."""

    def list_images(self) -> list[str]:
        return ["a", "b"]


def test_a_batch_asks_as_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a card")
    asked: list[dict[str, Any]] = []

    def infer(request: dict[str, Any], _store: Any) -> dict[str, Any]:
        asked.append(request)
        return {}

    BatchInfer()({"model": "m", "multi_gpu": True, "label_tag": "mine"}, Store(), infer)
    assert [r["image"] for r in asked] == ["a", "b"]
    assert {r["label_tag"] for r in asked} == {"mine"}
    assert not any(r["multi_gpu"] for r in asked), "one card is not shared out"


def test_a_batch_names_a_fault_without_words_by_its_kind() -> None:
    def none(request: dict[str, Any], _store: Any) -> dict[str, Any]:
        raise MemoryError if request["image"] == "a" else ValueError("b")

    with pytest.raises(MemoryError):  # the first reason
        BatchInfer()({"model": "m"}, Store(), none)

    def one(request: dict[str, Any], _store: Any) -> dict[str, Any]:
        if request["image"] == "a":
            raise MemoryError
        return {"label": "x"}

    found = BatchInfer()({"model": "m"}, Store(), one)
    assert found == {"a": {"skipped": "MemoryError"}, "b": {"label": "x"}}
