"""A door in another process, which stands in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from pvcd.errors import PvcdError

LIMIT = 60.0
ROOT = Path(__file__).parents[2]


class Remote:
    """A client that calls the functions of the door one after another."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def start(cls, namespace: str, module: str, *arguments: str) -> Self:
        """Run a module in a network namespace, where it `serve`s."""
        argv = ("ip", "netns", "exec", namespace, sys.executable, "-m", module, *arguments)
        return cls(await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, limit=2**20, cwd=ROOT))

    async def call(self, name: str, *values: object) -> Any:
        """Return the result of a function of the door, or raise its error."""
        assert self._process.stdin and self._process.stdout
        async with self._turn, asyncio.timeout(LIMIT):
            self._process.stdin.write(_line((name, values)))
            line = await self._process.stdout.readline()
        assert line, "the process with the door has ended; it may have said why"
        result = _value(line)
        if isinstance(result, PvcdError):
            raise result
        return result

    async def end(self) -> None:
        """Let the process end in order."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            async with asyncio.timeout(LIMIT):
                assert await self._process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


async def serve(call: Callable[..., Awaitable[Any]]) -> None:
    """Answer the calls that come on the standard input; `call` takes the name of a function and its arguments."""
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        name, values = _value(line)
        try:
            result = await call(name, *values)
        except PvcdError as error:
            result = error
        sys.stdout.buffer.write(_line(result))
        sys.stdout.buffer.flush()


def _line(value: object) -> bytes:
    return base64.b64encode(pickle.dumps(value)) + b"\n"


def _value(line: bytes) -> Any:
    return pickle.loads(base64.b64decode(line))
