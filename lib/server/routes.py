"""The stock endpoints, run off the event loop and with errors answered as errors.

MONAI Label declares its endpoints `async def` around code that never awaits: one inference
stops every other answer, `/info/` included. Each endpoint here runs in a thread of a pool of
its kind, so a queue of inferences cannot starve the quick ones, and what it raises becomes a
4xx with a message where the request is at fault.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from lib.server.errors import as_answer
from lib.server.params import check_json

logger = logging.getLogger(__name__)

Check = Callable[[dict[str, Any]], list[str] | None]
"""Refuses a call's arguments by raising; what it returns goes into the reply's `warnings`."""

SLOW_WORKERS = 32  # waiting for the device costs a sleeping thread each
QUICK_WORKERS = 8


class Pools:
    """Threads for slow endpoints (inference), quick ones, a DICOM store, and `/info/` alone."""

    def __init__(self) -> None:
        self.slow = ThreadPoolExecutor(SLOW_WORKERS, "slow")
        self.quick = ThreadPoolExecutor(QUICK_WORKERS, "quick")
        self.store = ThreadPoolExecutor(QUICK_WORKERS, "store")
        self.info = ThreadPoolExecutor(2, "info")


def finish(endpoint: Callable[..., Any], check: Check | None, arguments: dict[str, Any]) -> Any:
    """Run an endpoint that is async in name only, in the calling thread.

    Raises:
        HTTPException: where `check` or the endpoint says that the request is at fault.
    """
    try:
        for name, value in arguments.items():
            if isinstance(value, dict | list):
                check_json(value, name)
        told = check(arguments) if check else None
        coroutine = endpoint(**arguments)
        try:
            coroutine.send(None)
        except StopIteration as done:
            answer = done.value
            return {**answer, "warnings": told} if told and isinstance(answer, dict) else answer
        coroutine.close()
        raise AssertionError(f"{endpoint.__name__} awaits: it must stay on the event loop")
    except Exception as error:
        refusal = as_answer(error)
        if refusal is None or refusal is error:
            raise
        logger.info("%s: %s %s", endpoint.__name__, refusal.status_code, refusal.detail)
        raise refusal from error


def mend_router(router: APIRouter, pool: ThreadPoolExecutor, checks: Mapping[str, Check]) -> None:
    """Put every endpoint of a stock router into `pool`, behind its check.

    Args:
        router: one of `monailabel.endpoints.*`.
        checks: endpoint name -> check of its arguments.
    """

    def off_loop(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        check = checks.get(endpoint.__name__)

        @functools.wraps(endpoint)
        async def mended(**arguments: Any) -> Any:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, finish, endpoint, check, arguments)

        return mended

    stock = [route for route in router.routes if isinstance(route, APIRoute)]
    for route in stock:
        router.routes.remove(route)
    for route in stock:
        router.add_api_route(
            route.path.removeprefix(router.prefix),
            off_loop(route.endpoint),
            methods=list(route.methods or []),
            summary=route.summary,
            deprecated=route.deprecated,
            include_in_schema=route.include_in_schema,
        )
