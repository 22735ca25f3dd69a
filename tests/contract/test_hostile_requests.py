"""Requests that were answered 500 once, one of each kind: 4xx with the reason, and it goes on."""

from __future__ import annotations

import gzip
import io
import json
import socket
import struct
import tarfile
import warnings
import zipfile
from typing import Any
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
import requests
from PIL import Image

ITEM = "synthetic-000"
SECONDS = 60
DEEP = "[" * 100_000
HALF = r'{"a": "\ud800"}'


def _ask(server, method: str, path: str, **more: Any) -> requests.Response:
    return requests.request(method, f"{server.url}/{path}", timeout=SECONDS, **more)


def _refused(answer: requests.Response, *words: str, status: int | None = None) -> None:
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text[:500]}"
    assert status in (None, answer.status_code), answer.text[:500]
    for word in words:
        assert word in answer.text, answer.text[:500]


@pytest.mark.parametrize(
    "body",
    [
        '{"max_epochs": Infinity}', '{"max_epochs": null}', '{"max_epochs": [{}]}',
        '{"training_modes": {}}', '{"training_modes": [[]]}',
        '{"steps_per_epoch": 1000000000000000000000000000000}',
        '{"name": null}', '{"tracking": "x"}', '{"learning_rate": NaN}', HALF, '{"a": ' + DEEP,
        json.dumps({"note": "x" * 100_000}),
    ],
    ids=lambda b: b[:40],
)  # fmt: skip
def test_options_of_a_training(server, body: str):
    headers = {"Content-Type": "application/json"}
    _refused(_ask(server, "POST", "train/combined", data=body, headers=headers))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("train/", {"combined": 5}), ("train/", {"combined": {"name": "../x"}}),
        ("scoring/", {"uncertainty": 5}), ("batch/infer/segmentation", {"max_batch_size": "x"}),
        ("batch/infer/segmentation", {"gpus": 7}),
    ],
)  # fmt: skip
def test_options_of_several_jobs(server, path: str, body: dict[str, Any]):
    _refused(_ask(server, "POST", path, json=body))


@pytest.mark.parametrize("text", [DEEP, '{"d": ' + "[" * 900 + "]" * 900 + "}", HALF, "[" * 50])
def test_json_that_nothing_can_hold(server, text: str):
    image = {"image": ITEM}
    _refused(_ask(server, "PUT", "datastore/image/info", params=image, data={"info": text}))
    _refused(_ask(server, "POST", "infer/proofread", params=image, data={"params": text}))
    label = {"label": ("x.nii.gz", b"x")}
    _refused(
        _ask(server, "PUT", "datastore/label", params=image, data={"params": text}, files=label)
    )
    _refused(
        _ask(
            server, "PUT", "datastore/image", data={"params": text}, files={"file": label["label"]}
        )
    )
    assert _ask(server, "GET", "datastore/image/info", params=image).ok
    assert _ask(server, "GET", "datastore/", params={"output": "all"}).ok


@pytest.mark.parametrize("points", [[[10**400, 1, 1]], [[1e308, 1, 1]], [[True, 1, 1]], {}])
def test_points_of_no_image(server, points: Any):
    for model, key in (("proofread", "foreground"), ("proofread_classes", "axon")):
        text = json.dumps({key: points})
        _refused(
            _ask(server, "POST", f"infer/{model}", params={"image": ITEM}, data={"params": text})
        )


@pytest.mark.parametrize(
    "header", ["Host: [", "Host: [::1", "Host: ", "Host: 127.0.0.1\r\nOrigin: http://["]
)
def test_headers_that_are_no_address(server, header: str):
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), SECONDS) as link:
        link.sendall(
            f"POST /train/combined HTTP/1.1\r\n{header}\r\nContent-Length: 2\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n\r\n{}".encode()
        )
        status = int(link.recv(4096).split()[1])
    assert status in (400, 403)


def test_logs_of_endless_lines(server):
    for query in ({"lines": "99999999999999999999999"}, {"lines": "-1"}, {"refresh": "1e9"}):
        _refused(_ask(server, "GET", "logs/", params=query))


def _zip(*names: str, **info: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            made.writestr(name, b"" if name.endswith("/") else b"voxels")
    data = bytearray(buffer.getvalue())
    at = data.index(b"PK\x01\x02")
    if "flags" in info:
        struct.pack_into("<H", data, at + 8, info["flags"])
    if "method" in info:
        struct.pack_into("<H", data, at + 10, info["method"])
    if "spoil" in info:
        data[data.index(b"voxels")] ^= 255
    return bytes(data)


def _tar(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name in names:
            made.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.foo", _tar("x")), ("a.zip", _zip("x", flags=1)), ("a.zip", _zip("x", spoil=1)),
        ("a.zip", _zip("x", method=99)), ("a.zip", _zip("x", "x/y")), ("a.tar", _tar("x", "x/y")),
        ("a.zip", _zip("x" * 300)), ("a.tar", _tar("x" * 300)), ("a.tar", b"x" * 1000),
        ("a.tar.xz", b"\xfd7zXZ\x00broken"), ("é" * 200 + ".zip", _zip("x")),
    ],
    ids=lambda v: v[:12] if isinstance(v, str) else "",
)  # fmt: skip
def test_archives_that_cannot_be_unpacked(server, name: str, data: bytes):
    answer = _ask(server, "PUT", "session/?uncompress=true", files=[("files", (name, data))])
    _refused(answer)


def test_a_session_of_several_files_has_no_one_image(server):
    files = [("files", ("a.nii", b"1")), ("files", ("b.nii", b"2"))]
    session = _ask(server, "PUT", "session/", files=files).json()["session_id"]
    _refused(_ask(server, "GET", f"session/{session}?image=true"), "several files")
    _refused(_ask(server, "POST", f"infer/segmentation?session_id={session}"))
    assert _ask(server, "DELETE", f"session/{session}").ok


def test_detached_headers_read_nothing_of_the_server(server):
    header = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 8 8 2\nencoding: raw\ndata file: "
    for target in (b"/etc/passwd", b"LIST\n/etc/passwd", b"x%d.raw 0 1 1"):
        text = header + target + b"\n\n"
        _refused(_ask(server, "PUT", "session/", files={"files": ("x.nhdr", text)}), "detached")
        _refused(_ask(server, "PUT", "datastore/image", files={"file": ("x.nhdr", text)}))
        _refused(_ask(server, "POST", "infer/segmentation", files={"file": ("x.nhdr", text)}))
        made = _ask(server, "PUT", "session/", files={"files": ("x.nrrd", text)}).json()
        _refused(_ask(server, "POST", f"infer/segmentation?session_id={made['session_id']}"))


@pytest.mark.parametrize("name", ["l." + "x" * 300, "é" * 200 + ".nii.gz", "x.exe", ".nii.gz"])
def test_names_of_uploads(server, name: str):
    image = gzip.compress(b"x")
    _refused(_ask(server, "PUT", "datastore/image", files={"file": (name, image)}))
    _refused(
        _ask(
            server, "PUT", "datastore/label", params={"image": ITEM}, files={"label": (name, image)}
        )
    )
    if name != "x.exe":
        id_ = {"image": "é" * 120}
        _refused(
            _ask(server, "PUT", "datastore/image", params=id_, files={"file": ("x.nii.gz", image)}),
            "bytes",
        )


def test_what_is_there_is_never_replaced(server):
    before = (server.studies / f"{ITEM}.nii").read_bytes()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "png")
    other = {"file": ("x.png", buffer.getvalue())}
    _refused(
        _ask(server, "PUT", "datastore/image", params={"image": ITEM}, files=other),
        "exists",
        status=409,
    )
    assert (server.studies / f"{ITEM}.nii").read_bytes() == before
    truth = (server.studies / "labels" / "instance" / f"{ITEM}.nii.gz").read_bytes()
    for tag in ("instance", "submitted", "touched", "instance_predicted", "heat-uncertainty"):
        query = {"image": ITEM, "tag": tag}
        _refused(
            _ask(
                server,
                "PUT",
                "datastore/label",
                params=query,
                files={"label": ("x.nii.gz", b"junk")},
            ),
            tag,
        )
    for tag in ("instance", "submitted", "final"):
        wanted = json.dumps({"foreground": [[20, 20, 8]], "save_label": True, "label_tag": tag})
        _refused(
            _ask(
                server, "POST", "infer/proofread", params={"image": ITEM}, data={"params": wanted}
            ),
            tag,
        )
    assert (server.studies / "labels" / "instance" / f"{ITEM}.nii.gz").read_bytes() == truth


def _torch_file(value: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_weights_that_answer_nothing_are_not_published(server):
    import torch

    good = torch.load(server.weights, weights_only=True)
    before = server.weights.read_bytes()

    def changed(change) -> dict[str, Any]:
        return {**good, "model": {k: change(v) for k, v in good["model"].items()}}

    spoilt = {
        "empty": {}, "a list": [1], "no model": {k: v for k, v in good.items() if k != "model"},
        "no settings": {**good, "settings": None}, "no hierarchy": {**good, "hierarchy": None},
        "no meta": {k: v for k, v in good.items() if k != "meta"},
        "shapes": changed(lambda v: torch.zeros(3)), "zeros": changed(torch.zeros_like),
        "NaN": changed(lambda v: torch.full_like(v, torch.nan)),
    }  # fmt: skip
    for name, value in spoilt.items():
        answer = _ask(
            server, "PUT", "model/segmentation", files={"file": ("w.pt", _torch_file(value))}
        )
        assert 400 <= answer.status_code < 500, (name, answer.status_code, answer.text[:300])
    assert server.weights.read_bytes() == before


def _huge_nifti(**fields: Any) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["dim"], header["magic"] = [3, 32767, 32767, 32767, 1, 1, 1, 1], b"n+1"
    header["vox_offset"] = 352
    for key, value in fields.items():
        header[key] = value
    return gzip.compress(header.binaryblock + bytes(4))


def test_one_bad_label_stops_neither_its_image_nor_the_next_one(server):
    info = {"params": json.dumps({"label_info": [{"name": "axon", "idx": 1}]})}
    shape = (64, 64, 16)
    for bad in (_huge_nifti(), _huge_nifti(vox_offset=np.inf), _huge_nifti(pixdim=[np.nan] * 8)):
        query = {"image": "synthetic-001"}
        _refused(
            _ask(
                server,
                "PUT",
                "datastore/label",
                params=query,
                data=info,
                files={"label": ("x.nii.gz", bad)},
            )
        )
        _refused(_ask(server, "PUT", "datastore/image", files={"file": ("x.nii.gz", bad)}))
        _refused(_ask(server, "POST", "infer/segmentation", files={"file": ("x.nii.gz", bad)}))
    image = nib.load(server.studies / "synthetic-001.nii")
    good = nib.Nifti1Image(np.ones(shape, np.uint8), image.affine).to_bytes()
    answer = _ask(
        server, "PUT", "datastore/label", params=query, data=info, files={"label": ("x.nii", good)}
    )
    assert answer.ok and answer.json()["known_share"], answer.text


def test_images_that_unpack_to_many_times_their_size(server):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((17000, 17000), np.uint8)).save(buffer, "png")
    upload = {"file": ("bomb.png", buffer.getvalue())}
    _refused(_ask(server, "PUT", "datastore/image", files=upload), "times the file", status=413)
    _refused(_ask(server, "POST", "infer/segmentation", files=upload), "times the file", status=413)


def test_the_log_holds_no_traceback_of_these(server):
    text = server.log.read_text(errors="replace")
    assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:3000]
