"""The API server: the routes of all plugins over the store in memory, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from aiohttp import web

from pvcd.cluster import schema
from pvcd.daemon.components import open_components
from pvcd.declare.context import Context
from pvcd.http import routes as http_routes
from pvcd.http.admission import USER, Admission, described
from pvcd.http.middleware import MAX_BODY, errors
from pvcd.http.openapi import STALE_SINCE
from pvcd.http.origin import PROTECTION, own_names, screening
from pvcd.http.routes import Route
from pvcd.http.tls import renew, server_tls
from pvcd.plugin.registry import Registry, check
from pvcd.settings import SettingsError, read_file, settings_file

log = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 5.0
IDLE_SECONDS = 75.0
"""A connection is closed after this time without a whole request; proxies in front of the API give up after 60 s."""
MAX_LINE_BYTES = 256 * 1024
"""Of a request's first line, which may hold a VM's XML."""
MAX_FILES = 65536
CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
ADMISSION: web.AppKey[Admission] = web.AppKey("admission", Admission)


@contextlib.asynccontextmanager
async def api(context: Context, *, shared_port: bool = False, fd: int | None = None) -> AsyncIterator[web.AppRunner]:
    """Serve the API on its port, and read the tokens and the certificate again after SIGHUP."""
    settings = context.settings.api
    app, tls = create_app(context, await own_names()), server_tls(settings.ssl)
    _allow_many_connections()
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=IDLE_SECONDS,
        max_line_size=MAX_LINE_BYTES,
    )
    async with _on_hangup(lambda: _reload(context, app[ADMISSION], tls)):
        await runner.setup()
        try:
            site = web.TCPSite(
                runner, str(settings.listen_address), settings.listen_port, ssl_context=tls, reuse_port=shared_port
            )
            await site.start()
            log.info("listening on %s", site.name)
            if fd is not None:
                await web.SockSite(runner, socket.socket(fileno=fd), ssl_context=tls).start()
            yield runner
        finally:
            await runner.cleanup()


def _allow_many_connections() -> None:
    """Raise the limit of open files: each connection is one, and a process usually starts with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MAX_FILES)), hard))


@contextlib.asynccontextmanager
async def _on_hangup(act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Call a function after SIGHUP, once for several that come together."""
    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)

    async def follow() -> None:
        while True:
            await hung_up.wait()
            hung_up.clear()
            try:
                await act()
            except Exception:
                log.exception("cannot act on SIGHUP")

    following = asyncio.ensure_future(follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _reload(context: Context, admission: Admission, tls: ssl.SSLContext | None) -> None:
    """Read the tokens and the certificate again; keep the old ones where the new ones cannot be used."""
    api, registry = context.settings.api, cast(Registry, context.declarations)
    try:
        settings = await asyncio.to_thread(lambda: check(read_file(settings_file()), registry))
        if (settings.api.authentication.enabled, settings.api.ssl.enabled) == (api.authentication.enabled, bool(tls)):
            api = settings.api
            admission.replace_tokens(described(api.authentication))
            log.info("tokens reloaded")
        else:
            log.warning("tokens not reloaded: authentication and TLS are switched on or off by a restart only")
    except SettingsError as error:
        log.error("tokens not reloaded: %s", "; ".join(error.sentences))
    try:
        if tls:
            renew(tls, api.ssl)
            log.info("certificate reloaded")
    except SettingsError as error:
        log.error("certificate not reloaded: %s", error)


def create_app(context: Context, own_names: Iterable[str] = ()) -> web.Application:
    """Make the application of an API with these names; its store and components are open while it runs."""
    admission = Admission(context)
    screen = screening(context.settings.api, own_names)
    app = web.Application(middlewares=[errors, screen, *admission.middlewares], client_max_size=MAX_BODY)
    app[CONTEXT] = context
    app[ADMISSION] = admission
    app.cleanup_ctx.append(_open)
    app.on_response_prepare.append(_add_headers)
    http_routes.register(app, context.declared(Route), _call, admission.admit)
    return app


async def _open(app: web.Application) -> AsyncIterator[None]:
    context = app[CONTEXT]
    await context.store.open()
    try:
        await schema.prepare(context.store)
        async with open_components(context):
            yield
    finally:
        await context.store.close()


async def _call(request: web.Request, route: Route, arguments: Mapping[str, Any]) -> object:
    context = request.app[CONTEXT]
    if route.public:
        context = request.app[ADMISSION].introduce(context, request)
    else:
        context = context.derive(user=request.get(USER))
    name = route.operation_for(arguments)
    if name is None:
        return await route.function(context, **arguments)
    return await context.operations.run(context, name, arguments, lambda: route.function(context, **arguments))


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(PROTECTION)
    stale_since = request.app[CONTEXT].store.stale_since
    if stale_since is not None:
        response.headers[STALE_SINCE] = datetime.fromtimestamp(stale_since, UTC).isoformat(timespec="milliseconds")
