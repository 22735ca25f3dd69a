"""Requests that name files, keys or options they may not."""

import io
import json
import tarfile
import zipfile
from types import SimpleNamespace

import pytest
from fastapi import HTTPException

from lib.server.archives import check_archive
from lib.server.checks import Checks
from lib.server.params import parse_params


class App:
    def image_ids(self):
        return ["em", "em two"]

    def knows_image(self, image_id):
        return image_id in self.image_ids()

    def check_training(self, name, params):
        assert name == "combined"
        if params.get("max_epochs") == 0:
            raise ValueError("max_epochs: found 0")

    def labelled_images(self):
        return []

    def session(self, session_id):
        return SimpleNamespace(image="/sessions/a.nii") if session_id.startswith("0a") else None

    def names_of(self, kind):
        return {"models": ["segmentation"], "trainers": ["combined"]}.get(kind, ["random"])

    def keys_of(self, kind, name):
        return frozenset({"level"} if kind == "models" else {"max_epochs", "name"})


CHECKS = Checks(App(), 10_000).by_endpoint()


def _refused(endpoint: str, call: dict) -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        CHECKS[endpoint](call)
    assert 400 <= caught.value.status_code < 500
    return caught.value


OUTSIDE = ["/etc/passwd", "../../etc/passwd", "..", "em/../../x", "a\\..\\b", "", "x\x00", ".lock"]


@pytest.mark.parametrize("image", OUTSIDE)
def test_images_outside_the_studies_are_not_found(image: str):
    for endpoint in ("api_download_image", "api_check_image", "api_get_image_info"):
        assert _refused(endpoint, {"image": image}).status_code == 404
    assert _refused("api_remove_image", {"id": image}).status_code == 404
    assert _refused("api_save_label", {"image": image}).status_code == 404
    if image:
        assert _refused("api_run_inference", {"model": "segmentation", "image": image})


def test_params_cannot_replace_what_was_checked():
    for key in ("image", "image_path", "model", "session", "starting_mask"):
        call = {"model": "segmentation", "image": "em", "params": f'{{"{key}": "/etc/passwd"}}'}
        assert key in _refused("api_run_inference", call).detail
        assert key in _refused("api_sample", {"strategy": "random", "params": {key: "x"}}).detail


def test_training_names_no_files():
    for key in ("train_ds", "val_ds", "dataset"):
        call = {"model": "combined", "params": {key: "/etc/passwd"}}
        assert key in _refused("api_run_model", call).detail
    assert _refused("api_run_model", {"model": "combined", "params": {"name": "../../x"}})
    assert _refused("api_run", {"params": {"combined": {"name": "../x"}}})
    assert _refused("api_run_model", {"model": "other", "params": None}).status_code == 404


def test_a_training_that_cannot_start_is_refused_at_once():
    with pytest.raises(ValueError, match="max_epochs"):
        CHECKS["api_run_model"]({"model": "combined", "params": {"max_epochs": 0}})


@pytest.mark.parametrize("tag", ["../..", "a/b", "..", "", ".x", "x\x00y", "a b"])
def test_tags_are_words(tag: str):
    _refused("api_download_label", {"label": "em", "tag": tag})
    if tag:
        _refused("api_save_label", {"image": "em", "tag": tag})


def test_good_requests_pass():
    CHECKS["api_run_inference"]({"model": "segmentation", "image": "em two", "params": "{}"})
    CHECKS["api_run_inference"]({"model": "segmentation", "file": object(), "params": ""})
    CHECKS["api_save_label"]({"image": "em", "tag": "final", "params": '{"label_info": []}'})
    CHECKS["api_run_model"]({"model": "combined", "params": {"max_epochs": 2, "name": "run_1"}})
    CHECKS["api_sample"]({"strategy": "random", "params": {"client_id": "someone@lab"}})


@pytest.mark.parametrize("params", ["{", "[1]", "3", '"x"', "\x00"])
def test_params_are_a_json_object(params: str):
    with pytest.raises(HTTPException) as caught:
        parse_params(params)
    assert caught.value.status_code == 400


def test_devices_are_devices():
    for device in ("cuda:0; rm", 3, "disk", "cuda:-1"):
        call = {"model": "combined", "params": {"device": device}}
        assert "device" in _refused("api_run_model", call).detail
    CHECKS["api_run_model"]({"model": "combined", "params": {"device": "cuda:1"}})


def test_whole_slide_endpoints_read_no_paths():
    call = {"model": "segmentation", "image": "/etc/passwd"}
    assert _refused("api_run_wsi_inference", call).status_code == 404


def test_a_data_set_without_labels_is_not_there():
    assert _refused("api_download_dataset", {"limit_cases": None}).status_code == 404


def test_sessions_are_known_by_their_id_only():
    assert _refused("api_get_session", {"session_id": "../../etc"}).status_code == 404
    CHECKS["api_get_session"]({"session_id": "0a1b2c3d-0000-11ee-8c99-0242ac120002"})
    gone = {"session_id": "1a1b2c3d-0000-11ee-8c99-0242ac120002"}
    assert _refused("api_get_session", gone).status_code == 404


@pytest.mark.parametrize("tag", ["instance", "submitted", "touched", "heat-hierarchy"])
def test_derived_labels_are_written_by_nobody_else(tag: str):
    assert tag in _refused("api_save_label", {"image": "em", "tag": tag}).detail
    call = {"model": "segmentation", "image": "em", "params": json.dumps({"label_tag": tag})}
    assert tag in _refused("api_run_inference", call).detail


def test_final_is_for_submissions_not_for_predictions():
    CHECKS["api_save_label"]({"image": "em", "tag": "final"})
    call = {"model": "segmentation", "image": "em", "params": '{"label_tag": "final"}'}
    assert "final" in _refused("api_run_inference", call).detail


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' + "[" * 40 + "]" * 40 + "}", r'{"a": "\udfff"}',
             r'{"\ud800": 1}', '{"a": 1' + "0" * 400 + "}"]
)  # fmt: skip
def test_json_that_nothing_can_hold_is_refused(text: str):
    with pytest.raises(HTTPException) as caught:
        parse_params(text)
    assert caught.value.status_code == 400


def _zip(name: str, size: int = 3) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"x" * size)
    buffer.seek(0)
    return buffer


def _tar(name: str, link: str | None = None) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        archive.addfile(info, io.BytesIO(b""))
    buffer.seek(0)
    return buffer


def test_archives_stay_in_their_folder():
    for name in ("../x.nii", "/etc/x", "a/../../x", "..\\x", "C:\\x"):
        with pytest.raises(ValueError, match="outside"):
            check_archive(_zip(name), "a.zip", 10_000)
        with pytest.raises(ValueError, match="outside"):
            check_archive(_tar(name), "a.tar.gz", 10_000)
    with pytest.raises(ValueError, match="link"):
        check_archive(_tar("x", link="/etc/passwd"), "a.tar.gz", 10_000)
    with pytest.raises(ValueError, match="more than"):
        check_archive(_zip("x.nii", 20_000), "a.zip", 10_000)
    with pytest.raises(ValueError, match="cannot be read"):
        check_archive(io.BytesIO(b"no archive"), "a.zip", 10_000)
    good = _zip("a/x.nii")
    check_archive(good, "a.zip", 10_000)
    assert good.tell() == 0
    check_archive(_tar("a/x.nii"), "a.tar.gz", 10_000)


def test_session_uploads_are_checked_before_they_are_unpacked():
    upload = SimpleNamespace(filename="a.zip", file=_zip("../x"))
    with pytest.raises(ValueError, match="outside"):
        CHECKS["api_create_session"]({"files": [upload], "uncompress": True})
    _refused("api_create_session", {"files": [SimpleNamespace(filename="../a.nii")]})
    CHECKS["api_create_session"]({"files": [SimpleNamespace(filename="my image (1).nii")]})


def test_a_log_that_grows_is_sent_by_its_last_lines():
    for call in ({"lines": 0}, {"lines": -1}, {"lines": 10**20}, {"refresh": -1}):
        assert next(iter(call)) in _refused("api_get_logs", call).detail
    CHECKS["api_get_logs"]({"lines": 300, "refresh": 0})
