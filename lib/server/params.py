"""What requests carry besides ids: the `params` of a form or a body, names and tags.

JSON can carry what nothing behind it can: half characters, endless nesting, numbers beyond all
use; and the stock code makes paths of names and tags.
"""

from __future__ import annotations

import json
import re
from typing import Any

from lib.server.errors import refuse

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
GPUS = re.compile(r"all|\d{1,2}(,\d{1,2})*")
DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?|mps")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
MOST_DEPTH = 32
MOST_NUMBER = 2**63
MOST_JOB_TEXT = 1 << 16
"""Characters of a job's options: they become an argument of its process."""

RESERVED_TAGS = frozenset({"final", "instance", "submitted", "touched", "instance_predicted"})
"""Labels that only submissions, imports and runs over whole volumes write."""


def parse_params(text: str | None) -> dict[str, Any]:
    """The `params` form field.

    Raises:
        HTTPException: 400 where it is no JSON object.
    """
    try:
        params = json.loads(text or "{}")
    except (json.JSONDecodeError, RecursionError) as error:
        raise refuse(f"params: not valid JSON: {error}") from error
    if not isinstance(params, dict):
        raise refuse(f"params: expected a JSON object, found {type(params).__name__}")
    check_json(params)
    return params


def check_json(value: Any, where: str = "params", depth: int = MOST_DEPTH) -> None:
    """Refuse what JSON can carry and nothing behind it can.

    Raises:
        HTTPException: 400 for half a character, numbers beyond all use, or endless nesting.
    """
    if depth == 0:
        raise refuse(f"{where}: nested deeper than {MOST_DEPTH}")
    if isinstance(value, str):
        if found := HALF_CHARACTER.search(value):
            raise refuse(f"{where}: half a character ({found[0]!r}), which no text holds")
    elif isinstance(value, int) and abs(value) > MOST_NUMBER:
        raise refuse(f"{where}: a number of {len(str(value))} digits")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_json(key, where, depth)
            check_json(inner, where, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            check_json(inner, where, depth - 1)


def check_name(value: Any, what: str) -> None:
    """A word that may become part of a path."""
    if not isinstance(value, str) or not NAME.fullmatch(value) or ".." in value:
        raise refuse(f"{what}: expected letters, digits, '_', '-' or '.', found {value!r}")


def check_tag(tag: str, what: str) -> None:
    """A tag that requests may write to."""
    if tag in RESERVED_TAGS or tag.startswith("heat-"):
        raise refuse(f"{what}: {tag!r} is written by submissions and runs only; choose another tag")


def check_request_params(params: dict[str, Any], forbidden: set[str]) -> None:
    """Keys that only the server sets, and keys that choose a device or a name."""
    if own := sorted(forbidden & set(params)):
        raise refuse(f"params: {', '.join(own)} may not be given here")
    if params.get("label_tag") is not None:
        check_name(params["label_tag"], "params.label_tag")
        check_tag(params["label_tag"], "params.label_tag")
    if params.get("name") is not None:
        check_name(params["name"], "params.name")
    device = params.get("device")
    device = device[0] if isinstance(device, list) and device else device
    if device is not None and not (isinstance(device, str) and DEVICE.fullmatch(device)):
        raise refuse(f"params.device: expected cpu, cuda or cuda:N, found {device!r}")


def job_options(call: dict[str, Any]) -> dict[str, Any]:
    """The options of training, scoring or a batch, which travel to a process of their own."""
    params = call.get("params") or {}
    if len(json.dumps(params, default=str)) > MOST_JOB_TEXT:
        raise refuse(f"params: more than {MOST_JOB_TEXT} characters")
    return dict(params)


def check_batch(params: dict[str, Any]) -> None:
    """Options of a batch that the stock task trusts."""
    for key in ("max_batch_size", "max_workers"):
        value = params.get(key)
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 20
        if value is not None and not good:
            raise refuse(f"params.{key}: expected a whole number from 0, found {value!r}")
    gpus = params.get("gpus")
    if gpus is not None and not (isinstance(gpus, str) and GPUS.fullmatch(gpus)):
        raise refuse(f"params.gpus: expected 'all' or numbers like '0,1', found {gpus!r}")
