"""Runs the daemons: from the settings to a process that serves until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from aiohttp import web

from pvcd.clock import SystemClock
from pvcd.daemon.agent import agent
from pvcd.daemon.api import ADMISSION, create_app
from pvcd.daemon.api_processes import Workers
from pvcd.daemon.components import make_context
from pvcd.daemon.worker import worker
from pvcd.declare.context import Context, Role
from pvcd.errors import PvcdError
from pvcd.http.admission import Admission, described
from pvcd.http.middleware import NoHttpFilter, RequestIdFilter
from pvcd.http.tls import renew, server_tls
from pvcd.plugin.loading import PluginError
from pvcd.plugin.registry import Registry, check, start
from pvcd.settings import Api, Settings, SettingsError, read_file, settings_file
from pvcd.store.zookeeper import ZooKeeperTree

log = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 5.0
IDLE_SECONDS = 75.0
"""After which a connection is closed on which no whole request came; the proxies before us give up after 60."""
MAX_LINE = 256 * 1024
"""Bytes of a request's first line, in which a VM's XML may stand."""
MAX_FILES = 65536
Serve = Callable[[Context], AbstractAsyncContextManager[object]]
LONG_KEY = 32
"""Characters that the secret key should have."""


def run(role: Role, *, shared_port: bool = False, fd: int | None = None) -> int:
    """Run a daemon until SIGTERM or SIGINT; the exit code: 0 stopped, 1 failed, 2 wrong settings or plugins.

    With `shared_port` other processes of this user may listen on the API's port as well; `fd` is a socket, bound by
    whoever started us, on which the API is served too.
    """
    try:
        settings, declared = start(read_file(settings_file()))
    except (SettingsError, PluginError) as error:
        print(error, file=sys.stderr)
        return 2
    _log_to_stderr(debug=settings.debug)
    for complaint in declared.complaints:
        log.error("%s", complaint)
    others: dict[Role, Serve] = {Role.NODE: agent, Role.WORKER: worker}
    serve = others.get(role, partial(api, declared=declared, shared_port=shared_port, fd=fd))
    try:
        asyncio.run(_until_stopped(role, settings, declared, serve), debug=settings.debug)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except PvcdError as error:
        log.error("%s", error)
        return 1
    return 0


async def _until_stopped(
    role: Role,
    settings: Settings,
    declared: Registry,
    serve: Serve,
) -> None:
    node = settings.node.name if role is Role.NODE else ""
    context = make_context(role, settings, declared, tree(settings), SystemClock(), node)
    work = asyncio.ensure_future(_serve(serve, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, log.info, "SIGHUP changes nothing here")
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def _serve(serve: Serve, context: Context) -> None:
    async with serve(context):
        await asyncio.Event().wait()


def run_workers(count: int) -> int:
    """Run several API processes on one port until SIGTERM or SIGINT; the exit code as of `run`."""
    _log_to_stderr(debug=False)
    return asyncio.run(Workers(count).run())


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
async def api(
    context: Context, *, declared: Registry, shared_port: bool = False, fd: int | None = None
) -> AsyncIterator[web.AppRunner]:
    """A listening API server, which looks at its settings again after SIGHUP."""
    settings = context.settings.api
    app, tls = create_app(context), server_tls(settings.ssl)
    _warn_of_short_key(settings)
    _allow_many_connections()
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=IDLE_SECONDS,
        max_line_size=MAX_LINE,
    )
    async with _after_each_hangup(lambda: _look_again(context, declared, app[ADMISSION], tls)):
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
    """Each connection is an open file, of which a process may usually have 1024 unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MAX_FILES)), hard))


def _warn_of_short_key(settings: Api) -> None:
    if settings.authentication.enabled and len(settings.authentication.secret_key) < LONG_KEY:
        log.warning("pvc.api.authentication.secret_key should have %d random characters or more", LONG_KEY)


@contextlib.asynccontextmanager
async def _after_each_hangup(act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Let something be done after SIGHUP, once for several that come together."""
    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)

    async def follow() -> None:
        while True:
            await hung_up.wait()
            hung_up.clear()
            try:
                await act()
            except Exception:
                log.exception("what follows a SIGHUP failed")

    following = asyncio.ensure_future(follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _look_again(context: Context, declared: Registry, admission: Admission, tls: ssl.SSLContext | None) -> None:
    """Take the tokens and the certificate as the files hold them now; what cannot be used leaves the old ones."""
    api = context.settings.api
    try:
        settings = await asyncio.to_thread(lambda: check(read_file(settings_file()), declared))
        if (settings.api.authentication.enabled, settings.api.ssl.enabled) == (api.authentication.enabled, bool(tls)):
            api = settings.api
            admission.replace_tokens(described(api.authentication))
            log.info("the tokens were read again")
        else:
            log.warning("the tokens stay as they were: authentication or TLS is switched by a restart only")
    except SettingsError as error:
        log.error("the tokens stay as they were: %s", "; ".join(error.sentences))
    try:
        if tls:
            renew(tls, api.ssl)
            log.info("the certificate was read again")
    except SettingsError as error:
        log.error("the certificate stays as it was: %s", error)


def _log_to_stderr(*, debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    logging.getLogger("aiohttp.server").addFilter(NoHttpFilter())
    for noisy in ("kazoo", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
