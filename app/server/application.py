"""Build the application: routes, middleware and the lifespan of the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles

from talkhead import __version__
from talkhead.app.server import (
    dependencies,
    dubs,
    identities,
    live,
    pages,
    problems,
    videos,
    watch,
    web,
    whep,
)
from talkhead.app.server.bodies import BodyLimits
from talkhead.app.server.live_sessions import LiveSessions
from talkhead.app.server.logs import AccessLog
from talkhead.app.server.security import Guard
from talkhead.app.server.service import Service
from talkhead.app.web_export.request import SOURCES

ABOUT = """Fit a person from a minute of footage, and lip-sync them to any recording of speech.

Send the token that `talkhead serve` printed as `Authorization: Bearer TOKEN`. Errors are problem details
(RFC 9457); their `detail` says what was wrong and what to do."""


def make_application(service: Service, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Build the application.

    Args:
        service: The service. It is started and stopped with the application.
        routers: Additional routes.

    Returns:
        The application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.start)
        try:
            yield
        finally:
            await app.state.live.close()
            await run_in_threadpool(service.stop)

    app = FastAPI(
        title="talkhead",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
        redirect_slashes=False,
        responses=dependencies.EVERYWHERE,
        lifespan=lifespan,
        middleware=[  # the first is the outermost
            Middleware(AccessLog, metrics=service.metrics),
            Middleware(Guard, settings=service.settings, tickets=service.tickets),
            Middleware(BodyLimits, limits=service.settings.limits, admit=service.admit),
        ],
    )
    app.state.service = service
    app.state.live = LiveSessions(live.session_maker(service.home, service.settings))
    problems.install(app, service.home.path)
    own = (pages, videos, identities, web, dubs, live, whep, watch)
    for router in (*(module.router for module in own), *routers):
        app.include_router(router)
    app.mount("/static/head", StaticFiles(directory=SOURCES), name="head")
    app.mount("/static", StaticFiles(directory=pages.PAGE), name="static")
    return app
