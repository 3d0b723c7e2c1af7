"""Unit tests start no program, open no socket and do not sleep."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest

from pvcd import PLUGIN_API_1, Name, Record, hookimpl
from pvcd.clock import VirtualClock, settle
from pvcd.plugin.registry import collect
from pvcd.store import Store
from pvcd.store.memory import MemoryServer, MemoryTree

T = TypeVar("T")
CORE = collect([])
"""The declarations of the core."""


class Thing(Record, path="/things/{name}"):
    """A record to try things with."""

    name: Name
    value: int = 0
    note: str = ""


class Part(Record, path="/things/{name}/parts/{number}"):
    """A record below another one."""

    name: Name
    number: int


def plugin(name: str = "example", requires: Any = PLUGIN_API_1, **declared: Iterable[Any]) -> ModuleType:
    """A plugin's module that declares things: `plugin(routes=[...], records=[...])`."""
    module = ModuleType(name)
    module.__dict__["REQUIRES_PLUGIN_API"] = requires
    for kind, things in declared.items():
        setattr(module, f"register_{kind}", hookimpl(_returning(things)))
    return module


def _returning(things: Iterable[Any]) -> Any:
    def register() -> Iterable[Any]:
        return things

    return register


class Bench:
    """Stores over one server in memory, on a virtual clock."""

    def __init__(self) -> None:
        self.server, self.clock = MemoryServer(), VirtualClock()
        self.stores: list[Store] = []

    async def store(self, tree: MemoryTree | None = None) -> Store:
        """One more open store, as another process has it."""
        store = Store(tree or MemoryTree(self.server), [Thing, Part, *CORE.records], self.clock)
        await store.open()
        self.stores.append(store)
        return store

    def context(self, store: Store, **more: Any) -> Any:
        """As much of a context as the core's own functions ask for."""
        return SimpleNamespace(store=store, clock=self.clock, declarations=CORE, declared=CORE.of, **more)

    async def finish(self, work: Awaitable[T], seconds: float = 60.0) -> T:
        """The result of what needs some time to pass."""
        task = asyncio.ensure_future(work)
        end = self.clock.time() + seconds
        await settle()
        while not task.done() and self.clock.time() < end:
            await self.clock.advance(0.05)
        assert task.done(), f"it was not done after {seconds} s"
        return task.result()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Stores over one server in memory."""
    bench = Bench()
    yield bench
    for store in bench.stores:
        await store.close()


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail that reaches out of its process or waits."""

    def forbid(name: str) -> Any:
        def forbidden(*_: Any, **__: Any) -> None:
            raise AssertionError(f"a unit test must not use {name}")

        return forbidden

    monkeypatch.setattr(socket.socket, "connect", forbid("sockets"))
    monkeypatch.setattr(socket.socket, "bind", forbid("sockets"))
    monkeypatch.setattr(subprocess.Popen, "__init__", forbid("programs"))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", forbid("programs"))
    monkeypatch.setattr(time, "sleep", forbid("time.sleep"))
