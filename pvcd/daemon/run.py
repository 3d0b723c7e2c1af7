"""Run the daemons: from the settings to a process that serves until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from pvcd.clock import SystemClock
from pvcd.daemon.agent import agent
from pvcd.daemon.api import api
from pvcd.daemon.api_processes import ApiProcesses
from pvcd.daemon.components import make_context
from pvcd.daemon.exposure import warnings
from pvcd.daemon.worker import worker
from pvcd.declare.context import Context, Role
from pvcd.errors import PvcdError
from pvcd.http.middleware import NoHttpFilter, RequestIdFilter
from pvcd.plugin.loading import PluginError
from pvcd.plugin.registry import Registry, start
from pvcd.settings import Settings, SettingsError, read_file, settings_file
from pvcd.store.zookeeper import ZooKeeperTree

log = logging.getLogger(__name__)
Serve = Callable[[Context], AbstractAsyncContextManager[object]]


def run(role: Role, *, shared_port: bool = False, fd: int | None = None) -> int:
    """Run a daemon until SIGTERM or SIGINT; return the exit code: 0 stopped, 1 failed, 2 wrong settings or plugins.

    With `shared_port` other processes of this user may listen on the API's port as well; `fd` is a bound socket,
    inherited from the parent process, on which the API is served too.
    """
    try:
        settings, declared = start(read_file(settings_file()))
    except (SettingsError, PluginError) as error:
        print(error, file=sys.stderr)
        return 2
    _log_to_stderr(debug=settings.debug)
    for complaint in declared.complaints:
        log.error("%s", complaint)
    for warning in warnings(settings, settings_file()):
        log.warning("%s", warning)
    others: dict[Role, Serve] = {Role.NODE: agent, Role.WORKER: worker}
    serve = others.get(role, partial(api, shared_port=shared_port, fd=fd))
    try:
        asyncio.run(_until_stopped(role, settings, declared, serve), debug=settings.debug)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except PvcdError as error:
        log.error("%s", error)
        return 1
    return 0


async def _until_stopped(role: Role, settings: Settings, declared: Registry, serve: Serve) -> None:
    loop = asyncio.get_running_loop()
    node = settings.node.name if role is Role.NODE else ""
    context = make_context(role, settings, declared, tree(settings), SystemClock(), node)
    work = asyncio.ensure_future(_serve(serve, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    loop.add_signal_handler(signal.SIGHUP, log.info, "SIGHUP ignored: this daemon reloads nothing")
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def _serve(serve: Serve, context: Context) -> None:
    async with serve(context):
        await asyncio.Event().wait()


def run_api_processes(count: int) -> int:
    """Run several API processes on one port until SIGTERM or SIGINT; return the exit code, as `run` does."""
    _log_to_stderr(debug=False)
    return asyncio.run(ApiProcesses(count).run())


def tree(settings: Settings) -> ZooKeeperTree:
    """Return the ZooKeeper ensemble of the settings."""
    zookeeper = settings.zookeeper
    return ZooKeeperTree(
        ",".join(settings.coordinators),
        chroot=zookeeper.chroot,
        session_timeout=zookeeper.session_timeout,
        deadline=zookeeper.deadline,
        username=zookeeper.username,
        password=zookeeper.password,
    )


def _log_to_stderr(*, debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    logging.getLogger("aiohttp.server").addFilter(NoHttpFilter())
    for noisy in ("kazoo", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
