"""Everything that the stock server gets wrong, mended at its start; called once by the app.

The app is loaded while the server's web application starts, so its routes and middleware are
replaced before the first request. In the subprocesses that train or run a batch there is no
web application, and nothing to mend.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from fastapi.middleware.cors import CORSMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware

from lib.configs.settings import ServerSettings
from lib.server.checks import Checks, Known
from lib.server.download import mend_download
from lib.server.gate import LOOPBACK_ORIGIN, Gate, named_host, serves_others
from lib.server.inference import mend_inference
from lib.server.models import mend_models
from lib.server.pages import Shown, mend_pages
from lib.server.proxy import mend_proxy
from lib.server.routes import Pools, mend_router
from lib.server.tasks import mend_tasks
from lib.server.tokens import mend_tokens
from lib.server.uploads import mend_uploads


class Served(Known, Shown, Protocol):
    """What the mended server asks of the app."""


def training_runs() -> bool:
    """Whether a training that a viewer started is at work."""
    from monailabel.utils.async_tasks.task import AsyncTask

    return AsyncTask.status("train", check_if_running=True)[0] is not None


def in_server() -> bool:
    """Whether this process serves; not one that trains, scores or runs a batch."""
    return "monailabel.app" in sys.modules


def mend_server(app: Served, settings: ServerSettings) -> bool:
    """Mend the web application of this process.

    Returns:
        False where there is none.
    """
    if not in_server():
        return False
    module = sys.modules["monailabel.app"]
    from monailabel.config import settings as stock_settings
    from monailabel.endpoints import (
        activelearning,
        batch_infer,
        datastore,
        infer,
        info,
        login,
        logs,
        model,
        ohif,
        proxy,
        scoring,
        session,
        train,
        wsi_infer,
    )
    from monailabel.endpoints.user import auth

    pools = Pools()
    checks = Checks(app, settings.max_upload_bytes).by_endpoint()
    mend_router(info.router, pools.info, {})
    for slow in (infer, wsi_infer, batch_infer, train, scoring):
        mend_router(slow.router, pools.slow, checks)
    for quick in (activelearning, datastore, session, model, logs, login):
        mend_router(quick.router, pools.quick, checks)
    mend_tasks()
    mend_inference(infer)
    mend_models(model)
    mend_download(datastore)
    mend_proxy(proxy, stock_settings.MONAI_LABEL_STUDIES, pools.store)
    mend_tokens(auth, login)
    mend_uploads(datastore)
    web = module.app
    guard = auth.RBAC(stock_settings.MONAI_LABEL_AUTH_ROLE_USER)
    others = serves_others(sys.argv)
    host = named_host(sys.argv) if others else "127.0.0.1"
    mend_pages(app, web, ohif, logs, training_runs, guard, host)
    origins = [str(origin) for origin in stock_settings.MONAI_LABEL_CORS_ORIGINS]
    _guard_requests(web, others, settings.max_upload_bytes, origins)
    return True


def _guard_requests(
    web: Starlette, others: bool, max_body_bytes: int, origins: Sequence[str]
) -> None:
    """Put the gate, and who may read answers, before everything that the application does.

    Args:
        others: whether other machines may connect.
        max_body_bytes: the most one request may carry.
        origins: web origins allowed besides this machine's own.
    """
    web.user_middleware = [
        Middleware(Gate, remote=others, max_body_bytes=max_body_bytes, origins=origins),
        Middleware(
            CORSMiddleware,
            allow_origins=[origin.rstrip("/") for origin in origins],
            allow_origin_regex=LOOPBACK_ORIGIN,
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
        ),
    ]
    web.middleware_stack = web.build_middleware_stack()
