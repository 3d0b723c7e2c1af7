"""The API server: the routes of all plugins over the store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from pvcd.cluster import schema
from pvcd.daemon.components import open_components
from pvcd.declare.context import Context
from pvcd.http import routes as http_routes
from pvcd.http.admission import USER, Admission
from pvcd.http.middleware import MAX_BODY, errors
from pvcd.http.openapi import STALE_SINCE
from pvcd.http.routes import Route

CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
ADMISSION: web.AppKey[Admission] = web.AppKey("admission", Admission)


def create_app(context: Context) -> web.Application:
    """The application; its store and components are opened when it starts and closed when it stops."""
    admission = Admission(context)
    app = web.Application(middlewares=[errors, *admission.middlewares], client_max_size=MAX_BODY)
    app[CONTEXT] = context
    app[ADMISSION] = admission
    app.cleanup_ctx.append(_open)
    app.on_response_prepare.append(_mark_stale)
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


async def _mark_stale(request: web.Request, response: web.StreamResponse) -> None:
    stale_since = request.app[CONTEXT].store.stale_since
    if stale_since is not None:
        response.headers[STALE_SINCE] = datetime.fromtimestamp(stale_since, UTC).isoformat(timespec="milliseconds")
