"""The proxy to a DICOMweb store: off the event loop, and to that store's paths only.

The stock proxy waits for the store inside the event loop, so one slow section stops every
other answer; it lets `..` leave the store's address, and fails where there is no store.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import requests
from fastapi import HTTPException, Request

from lib.server.errors import BAD_GATEWAY, NOT_FOUND, refuse
from lib.server.routes import finish


def mend_proxy(endpoint: ModuleType, studies: str, pool: ThreadPoolExecutor) -> None:
    """Replace `proxy_dicom` of `monailabel.endpoints.proxy`.

    Args:
        studies: what the server serves; an address, or a folder that has no proxy.
        pool: whose threads wait for the store.
    """
    stock = endpoint.proxy_dicom

    async def proxy_dicom(request: Request, op: str, path: str) -> Any:
        if not studies.startswith(("http://", "https://")):
            raise refuse("this server has a study folder, no DICOM store", NOT_FOUND)
        if ".." in unquote(path).replace("\\", "/").split("/"):
            raise refuse(f"path: {path!r} leaves the store's address")
        await request.body()  # kept by the request, so that the stock code need not wait
        call = {"request": request, "op": op, "path": path}
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(pool, finish, stock, None, call)
        except requests.RequestException as error:
            raise HTTPException(BAD_GATEWAY, f"the DICOM store does not answer: {error}") from error

    endpoint.__dict__["proxy_dicom"] = proxy_dicom
