"""A parameter that no task knows: refused where it is a slip, told where it is not."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from lib.configs.settings import Settings
from lib.infers.current import Current
from lib.infers.instances import Instances
from lib.infers.proofread import Proofread
from lib.infers.proofread_classes import ProofreadClasses
from lib.infers.segmentation import Segmentation
from lib.infers.strokes import Strokes
from lib.infers.viewer_labels import ViewerLabels
from lib.labels.hierarchy import load_hierarchy
from lib.server.checks import OWN_KEYS, Checks
from lib.server.routes import Pools, mend_router
from lib.server.spelling import (
    BATCH,
    CLIENTS,
    MOST_UNKNOWN,
    OF_KIND,
    keys_of,
    unknown_keys,
)
from lib.trainers.combined import Combined

ROOT = Path(__file__).parents[2]
INFERS = [Segmentation, Instances, Proofread, ProofreadClasses, Strokes, Current]
SLICER = ["result_extension", "result_dtype", "client_id"]
OHIF = ["result_extension", "result_dtype", "result_compress", "restore_label_idx", "client_id"]


def parts() -> Any:
    """What a task needs to say which parameters it knows."""
    labels, objects = ViewerLabels(load_hierarchy()), SimpleNamespace(drafts=None)
    return SimpleNamespace(
        network=None, labels=labels, settings=Settings(), images=None, cache=None, objects=objects
    )


def known(task: type) -> frozenset[str]:
    return keys_of("models", task(parts()))


def refusal(key: str, names: frozenset[str] | set[str]) -> str:
    with pytest.raises(HTTPException) as error:
        unknown_keys([key], names)
    assert error.value.status_code == 400
    return str(error.value.detail)


@pytest.mark.parametrize(
    ("task", "slip", "meant"),
    [
        (Segmentation, "levle", "level"),
        (Segmentation, "Level", "level"),
        (Segmentation, "result-dtype", "result_dtype"),
        (Segmentation, "rio", "roi"),
        (Segmentation, "bright_membrane", "bright_membranes"),
        (Segmentation, "client", "client_id"),
        (Instances, "split_merg", "split_merge"),
        (Instances, "maxsegments", "max_segments"),
        (Proofread, "forground", "foreground"),
        (Proofread, "object", "objects"),
        (Proofread, "od", "do"),
        (Proofread, "ovr", "over"),
        (ProofreadClasses, "axn", "axon"),
        (ProofreadClasses, "axon 3", "axon"),
        (Strokes, "label_inf", "label_info"),
        (Current, "olny", "only"),
    ],
)
def test_a_slip_is_refused_with_the_name_that_was_meant(task: type, slip: str, meant: str) -> None:
    told = refusal(slip, known(task))
    assert repr(slip) in told and f"did you mean {meant!r}" in told
    assert all(name in told for name in known(task)), "and with all that there are"


def test_the_names_of_other_options_are_no_slips_of_these() -> None:
    every = frozenset[str]().union(*(known(task) for task in INFERS))
    for task in INFERS:
        others = sorted(every - known(task))
        told = unknown_keys(others, known(task), every)
        assert told and all(repr(name) in told[0] for name in others)


def test_what_no_task_knows_is_told_in_the_reply_and_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "neuropil.requests"):
        told = unknown_keys(["level", "wizardry", "x" * 1000], {"level"})
    assert len(told) == 1 and "'wizardry'" in told[0] and len(told[0]) < 200
    assert "wizardry" in caplog.text
    assert unknown_keys([], {"level"}) == unknown_keys(["level"], {"level"}) == []


def test_more_unknown_names_than_anybody_writes_are_refused() -> None:
    with pytest.raises(HTTPException, match=f"at most {MOST_UNKNOWN}"):
        unknown_keys([f"q{n}" for n in range(MOST_UNKNOWN + 1)], {"level"})


@given(st.lists(st.text(max_size=80), max_size=5))
def test_every_name_is_known_told_or_refused_by_name(keys: list[str]) -> None:
    names = {"level", "roi", "result_dtype"}
    try:
        told = unknown_keys(keys, names)
    except HTTPException as error:
        assert any(repr(key) in str(error.detail) for key in keys)
        return
    strange = [key for key in keys if key not in names | CLIENTS]
    assert bool(told) == bool(strange)
    assert all(repr(key[:60])[:-1] in told[0] for key in strange)


@pytest.mark.parametrize("task", INFERS)
def test_what_viewers_send_is_no_slip_and_nothing_to_tell(task: type) -> None:
    """Both viewers' requests to tasks of each kind (plugins of MONAI Label 0.8.5)."""
    options = sorted(task(parts()).config())
    labels = parts().labels.segments
    sent = {
        "deepgrow": ["label", "foreground", "background", "roi", "slice", "reset_state"],
        "deepedit": [*labels, "label", "background", "reset_state"],
        "scribbles": ["roi", "label_info", "selected_label_name"],
        "segmentation": [],
    }[task(parts()).type]
    for viewer in (SLICER, OHIF):
        assert unknown_keys([*options, *viewer, *sent], known(task)) == []


def read_in(folder: str) -> Iterator[tuple[str, str]]:
    """(file, key) of every `request.get("key")`, `request["key"]` of a folder of lib."""
    for path in sorted((ROOT / "lib" / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
                asked, key = node.value, node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                if node.func.attr not in ("get", "choice", "number"):
                    continue
                asked = node.func.value if node.func.attr == "get" else node.args[0]
                key = node.args[0] if node.func.attr == "get" else node.args[1]
            else:
                continue
            named = isinstance(asked, ast.Name) and asked.id in ("request", "asked")
            if named and isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield path.name, key.value


def test_every_parameter_that_a_task_reads_is_a_known_one() -> None:
    trainer = Combined(Path(), Path("none.pt"), Path(), Settings())
    infers = frozenset[str]().union(*(known(task) for task in INFERS))
    every = {
        "infers": infers,
        "trainers": keys_of("trainers", trainer),
        "activelearning": OF_KIND["strategies"] | OF_KIND["scoring"],
        "server": infers | OF_KIND["models"] | BATCH,  # it keeps what was answered to what
    }
    for folder, names in every.items():
        found = set(read_in(folder))
        assert found, folder
        server_set = OWN_KEYS | {"starting_mask_raw"}
        unknown = {(f, k) for f, k in found if k not in names | CLIENTS | server_set}
        assert not unknown, f"lib/{folder} reads what lib/server/spelling.py does not know"


class App:
    """An app with a task of each kind."""

    def __init__(self) -> None:
        self.keys = {
            "models": {"segmentation": {"level"}, "proofread": {"level", "foreground"}},
            "trainers": {"combined": {"max_epochs"}},
            "strategies": {"random": {"client_id"}},
            "scoring": {"uncertainty": {"heat_maps"}},
        }

    def names_of(self, kind: str) -> list[str]:
        return list(self.keys[kind])

    def keys_of(self, kind: str, name: str) -> frozenset[str]:
        return frozenset(self.keys[kind][name])

    def check_training(self, name: str, params: dict[str, Any]) -> None:
        """All may start."""


JOBS = {
    "api_run_model": {"model": "combined"},
    "api_sample": {"strategy": "random"},
    "api_run_method": {"method": "uncertainty"},
    "api_run": {"model": "segmentation"},
}


@pytest.mark.parametrize(
    ("endpoint", "slip"),
    [
        ("api_run_model", "max_epoch"),
        ("api_sample", "clientid"),
        ("api_run_method", "heat_map"),
        ("api_run", "levels"),
        ("api_run", "max_worker"),
    ],
)
def test_one_rule_for_training_strategies_scoring_and_batches(endpoint: str, slip: str) -> None:
    check = Checks(App(), 0).by_endpoint()[endpoint]  # type: ignore[arg-type]
    with pytest.raises(HTTPException, match=slip):
        check({**JOBS[endpoint], "params": {slip: 1}})
    told = check({**JOBS[endpoint], "params": {"wizardry": 1}})
    assert "wizardry" in told[0]
    assert check({**JOBS[endpoint], "params": None}) == []


def test_in_run_all_options_by_name_keep_the_rule() -> None:
    check = Checks(App(), 0).by_endpoint()["api_run"]  # type: ignore[arg-type]
    with pytest.raises(HTTPException, match="max_epoch"):
        check({"params": {"combined": {"max_epoch": 1}}})
    with pytest.raises(HTTPException, match="combinde"):
        check({"params": {"combinde": {"max_epochs": 1}}})
    assert check({"params": {"combined": {"max_epochs": 1}, "uncertainty": {}}}) == []


def test_what_is_told_goes_into_the_reply() -> None:
    router = APIRouter(prefix="/x")

    @router.post("/job")
    async def api_job(name: str) -> dict[str, Any]:
        return {"id": name}

    web = FastAPI()
    web.include_router(router)
    mend_router(
        router, Pools().quick, {"api_job": lambda call: ["odd"] if call["name"] == "a" else []}
    )
    client = TestClient(web)
    assert client.post("/x/job?name=a").json() == {"id": "a", "warnings": ["odd"]}
    assert client.post("/x/job?name=b").json() == {"id": "b"}
