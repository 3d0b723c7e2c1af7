"""Runs the daemons: from the settings to a process that serves until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web

from pvcd import registry
from pvcd.agent import agent
from pvcd.app import create_app, tls
from pvcd.clock import SystemClock
from pvcd.context import Context, Role, make_context
from pvcd.errors import PvcdError
from pvcd.http.middleware import RequestIdFilter
from pvcd.registry import PluginError
from pvcd.settings import Settings, SettingsError, read_file, settings_file
from pvcd.store.zookeeper import ZooKeeperTree

log = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 5.0


def run(role: Role) -> int:
    """Run a daemon until SIGTERM or SIGINT; the exit code: 0 stopped, 1 failed, 2 wrong settings or plugins."""
    try:
        settings, declared = registry.start(read_file(settings_file()))
        _refuse_what_is_missing(settings)
    except (SettingsError, PluginError) as error:
        print(error, file=sys.stderr)
        return 2
    _log_to_stderr(debug=settings.debug)
    serve: Callable[[Context], AbstractAsyncContextManager[object]] = agent if role is Role.NODE else api
    try:
        asyncio.run(_until_stopped(role, settings, declared, serve), debug=settings.debug)
    except PvcdError as error:
        log.error("%s", error)
        return 1
    return 0


def _refuse_what_is_missing(settings: Settings) -> None:
    if settings.api.authentication.enabled:
        raise SettingsError(
            ["pvc.api.authentication.enabled: this version cannot authenticate yet, so it does not start unprotected."]
        )


async def _until_stopped(
    role: Role,
    settings: Settings,
    declared: registry.Registry,
    serve: Callable[[Context], AbstractAsyncContextManager[object]],
) -> None:
    node = settings.node.name if role is Role.NODE else ""
    context = make_context(role, settings, declared, tree(settings), SystemClock(), node)
    work = asyncio.ensure_future(_serve(serve, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def _serve(serve: Callable[[Context], AbstractAsyncContextManager[object]], context: Context) -> None:
    async with serve(context):
        await asyncio.Event().wait()


def tree(settings: Settings) -> ZooKeeperTree:
    """The ZooKeeper ensemble of the settings."""
    zookeeper = settings.zookeeper
    return ZooKeeperTree(
        ",".join(settings.coordinators),
        chroot=zookeeper.chroot,
        session_timeout=zookeeper.session_timeout,
        deadline=zookeeper.deadline,
        username=zookeeper.username,
        password=zookeeper.password,
    )


@contextlib.asynccontextmanager
async def api(context: Context) -> AsyncIterator[web.AppRunner]:
    """A listening API server."""
    settings = context.settings.api
    runner = web.AppRunner(create_app(context), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(
            runner, str(settings.listen_address), settings.listen_port, ssl_context=tls(context.settings)
        )
        await site.start()
        log.info("listening on %s", site.name)
        yield runner
    finally:
        await runner.cleanup()


def _log_to_stderr(*, debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    for noisy in ("kazoo", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
