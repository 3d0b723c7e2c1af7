"""Tools for tests of pvcd and of plugins: a whole cluster in one process, and requests without a server.

    async def test_answers() -> None:
        async with SimulatedCluster(nodes=["hv1"], plugins=[...]) as cluster:
            reply = await cluster.request("GET", "/api/v1/health")
            assert reply.status == 200

The API and the agents are real; the store is in memory, time stands still until `advance`, and components are replaced
by the fakes that they declare, or by others. Only components in memory are opened as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self, TypeVar
from unittest import mock
from urllib.parse import urlencode

from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request

from pvcd.clock import VirtualClock, settle
from pvcd.daemon.agent import agent
from pvcd.daemon.api import create_app
from pvcd.daemon.components import make_context
from pvcd.daemon.worker import worker
from pvcd.declare.context import Component, ComponentKey, Context, Role
from pvcd.errors import Refused
from pvcd.plugin.loading import Plugin, load
from pvcd.plugin.registry import Registry, collect
from pvcd.process import ProcessIdentity
from pvcd.settings import PluginsSection, Settings, build
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.tasks import Task

Open = Callable[[Context], AbstractAsyncContextManager[Any]]
T = TypeVar("T")
TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Reply:
    """The answer of the API."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


def minimal_settings(registry: Registry, **sections: Any) -> Settings:
    """Build settings with only what is required, and the given sections of `pvc`."""
    api = {
        "listen_address": "127.0.0.1",
        "authentication": {"enabled": False},
        "ssl": {"enabled": False},
    }
    values = {"debug": True, "coordinators": ["127.0.0.1"], "api": api, **sections}
    return build(values, registry.sections)


class NoFake(Refused):
    """A simulation would open the real door of a component."""


class SimulatedCluster:
    """One API server and any number of agents over one store in memory, on a virtual clock."""

    def __init__(
        self,
        nodes: Sequence[str] = ("hv1",),
        plugins: Sequence[ModuleType] = (),
        replace: Mapping[ComponentKey[Any], Open] | None = None,
        without: Collection[str] = (),
        **sections: Any,
    ) -> None:
        """Use the installed plugins except those in `without`, and the modules in `plugins`."""
        self.clock = VirtualClock()
        self.server = MemoryServer()
        given = [Plugin(module.__name__, module, "given to the test") for module in plugins]
        installed = load(PluginsSection(disabled=frozenset(without)))
        others = [each for each in installed if not isinstance(each, Plugin) or each.module not in plugins]
        self.registry = _with_fakes(collect([*others, *given]), replace or {})
        self.settings = minimal_settings(self.registry, **sections)
        self.agents: dict[str, Context] = {}
        self._names = nodes
        self._agents: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._app: web.Application
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        context = make_context(Role.API, self.settings, self.registry, MemoryTree(self.server), self.clock)
        self.api = context
        self._app = create_app(context)
        self._app.freeze()
        await self._app.startup()
        self._stack.push_async_callback(self._app.cleanup)
        for name in self._names:
            await self.start_agent(name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for name in list(self._agents):
            await self.stop_agent(name)
        await self._stack.aclose()

    async def start_agent(self, name: str) -> None:
        """Start the agent of a node; return when it is in the cluster."""
        context = make_context(Role.NODE, self.settings, self.registry, MemoryTree(self.server), self.clock, name)
        ready, self._ends[name] = asyncio.Event(), asyncio.Event()
        self._agents[name] = asyncio.ensure_future(self._live(context, ready, self._ends[name]))
        for _ in range(100):
            await settle()
            if ready.is_set() or self._agents[name].done():
                break
            await self.clock.advance(0.1)
        if self._agents[name].done():
            await self._agents.pop(name)
        assert ready.is_set(), f"the agent of {name} did not enter the cluster"
        await self.clock.advance(0.1)

    async def stop_agent(self, name: str) -> None:
        """Stop an agent in an orderly way."""
        self._ends.pop(name).set()
        life = self._agents.pop(name)
        for _ in range(100):
            if life.done():
                break
            await self.clock.advance(0.1)
        await life

    async def kill_agent(self, name: str) -> None:
        """End an agent as kill -9 does; its ZooKeeper session ends too."""
        context = self.agents.pop(name)
        tree = context.store.tree
        assert isinstance(tree, MemoryTree)
        session = tree.session
        self.server.cut(tree)
        self._ends.pop(name)
        life = self._agents.pop(name)
        life.cancel()
        await self.clock.advance(0.1)
        await asyncio.gather(life, return_exceptions=True)
        self.server.expire(session)
        await settle()

    async def finish_tasks(self, seconds: float = 600.0) -> None:
        """Let a task worker run all tasks until they are over."""
        context = make_context(Role.WORKER, self.settings, self.registry, MemoryTree(self.server), self.clock)
        end = self.clock.time() + seconds
        async with worker(context, ProcessIdentity(boot="simulated", namespace=1, pid=1, started=1)):
            while not all(task.is_over for task in self.api.store.all(Task)):
                assert self.clock.time() < end, f"the tasks are not over after {seconds:g} s"
                await self.clock.advance(0.5)

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.advance(seconds)

    async def request(self, method: str, path: str, **values: Any) -> Reply:
        """Send a request with form values to the application of the API."""
        reader = StreamReader(mock.Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
        reader.feed_data(urlencode(values, doseq=True).encode())
        reader.feed_eof()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if values else {}
        request = make_mocked_request(method, path, headers, payload=reader, app=self._app)
        response = await self._at_least_at_real_speed(self._app._handle(request))
        assert isinstance(response, web.Response)
        body = response.body if isinstance(response.body, bytes) else b""
        return Reply(response.status, body, response.headers)

    async def _at_least_at_real_speed(self, work: Coroutine[Any, Any, T]) -> T:
        """Let time pass while the work waits, as it may wait for a later time."""
        working = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([working], timeout=TICK_SECONDS))[0]:
                await self.clock.advance(TICK_SECONDS)
            return working.result()
        finally:
            working.cancel()

    async def _live(self, context: Context, ready: asyncio.Event, end: asyncio.Event) -> None:
        async with agent(context) as running:
            self.agents[context.node] = running
            ready.set()
            await end.wait()
        self.agents.pop(context.node, None)


def _with_fakes(registry: Registry, fakes: Mapping[ComponentKey[Any], Open]) -> Registry:
    """Replace all components that may reach something outside; raise `NoFake` if there is nothing to replace one."""

    def simulated(component: Component[Any]) -> Open:
        found = fakes.get(component.key) or component.fake or (component.open if component.in_memory else None)
        if found is None:
            raise NoFake(
                f"Cannot simulate component {component.name!r} of {registry.owner(component)}: it has no fake. "
                "Declare one, or in_memory=True if the component itself reaches nothing outside of its process."
            )
        return found

    components = tuple(dataclasses.replace(each, open=simulated(each)) for each in registry.components)
    return dataclasses.replace(registry, components=components)


@contextlib.asynccontextmanager
async def opened(component: Any) -> AsyncIterator[Any]:
    """Yield a component that is open already, for `replace`."""
    yield component
